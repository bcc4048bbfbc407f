"""Students: as fast as a video call needs, or as published."""
