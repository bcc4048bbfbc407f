"""Live sharpening of a camera or video into a window, virtual camera or video."""
