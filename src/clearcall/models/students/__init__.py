"""Students: as fast as a video call needs, or as published. One file an architecture, with a function `build`."""
