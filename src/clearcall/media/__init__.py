"""Images, videos and cameras, sharpened."""
