"""The live loop: a camera, or a video at its own pace, sharpened at a fixed rate into a window, a camera or a video."""
