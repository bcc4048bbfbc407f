"""Videos: every frame sharpened, all other streams copied."""
