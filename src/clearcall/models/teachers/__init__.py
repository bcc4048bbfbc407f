"""Teachers: as good as the time budget allows, never shipped."""
