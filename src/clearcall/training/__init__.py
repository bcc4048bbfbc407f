"""The one training loop, for teacher and student alike."""
