"""A page on this machine that sharpens images, videos and the camera in the browser."""
