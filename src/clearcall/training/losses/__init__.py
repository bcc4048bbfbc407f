"""Losses: functions of float32 images (N, 3, H, W) in [0, 1] to a scalar."""
