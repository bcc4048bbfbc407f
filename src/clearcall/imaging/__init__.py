"""Frames: colour, sizes, metrics, decoding, the unsharp mask, grids of crops."""
