"""Published networks, rebuilt from their descriptions so that they can be timed beside ours: one a file.

Their weights are random, so that their speed is theirs and their pictures are not. Every network takes RGB of shape
(N, 3, H, W), float32 in [0, 1], and returns (N, 3, scale * H, scale * W), not clipped.
"""
