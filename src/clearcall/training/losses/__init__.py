"""Losses: pure functions of pictures, float32 in [0, 1], shape (N, 3, H, W); each returns a scalar."""
