"""Films: the luma of every frame sharpened, everything else that the file holds copied as it is."""
