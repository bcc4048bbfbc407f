"""Losses: pure functions of images, float32 in [0, 1], shape (N, 3, H, W); each returns a scalar."""
