"""Published networks that are timed beside ours and not trained here: one a file.

Every network takes RGB of shape (N, 3, H, W), float32 in [0, 1], and returns (N, 3, scale * H, scale * W), not clipped.
"""

from torch import Tensor, nn


class Enlarging(nn.Module):
    """A student's published part, from the image at half resolution."""

    stride = 1

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge RGB of (N, 3, H, W) in [0, 1]."""
        enlarged: Tensor = self.student.enlarge(image)  # type: ignore[operator]  # nn.Module hides methods
        return enlarged
