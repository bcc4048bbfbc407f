"""Recipes: files of values to train by, the published systems among them, and ours beside what was printed."""
