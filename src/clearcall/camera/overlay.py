"""The status, written onto a frame."""

import cv2
import numpy as np

from clearcall.metrics import Frame

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LINE_PART, _LEAST_LINE = 1 / 26, 10  # of the height; pixels
_FONT_HEIGHT = 32  # pixels of a line at scale 1
_WHITE, _DARK = 235, 40
_NEUTRAL = 128


def draw_overlay(frame: Frame, lines: list[str]) -> Frame:
    """Return a copy of an I420 frame, (height * 3 / 2, width), with lines of text in its upper left corner."""
    frame = frame.copy()
    height, width = frame.shape[0] // 3 * 2, frame.shape[1]
    line = max(_LEAST_LINE, round(height * _LINE_PART))
    scale, thickness = line / _FONT_HEIGHT, max(1, round(line / 20))
    text_width = max(cv2.getTextSize(text, _FONT, scale, thickness)[0][0] for text in lines)
    bottom, right = min(height, (len(lines) * line + line) // 2 * 2), min(width, (text_width + line) // 2 * 2)
    frame[:bottom, :right] //= 3
    frame[:bottom, :right] += _DARK // 3
    chroma = frame[height:].reshape(2, height // 2, width // 2)
    chroma[:, : bottom // 2, : right // 2] = _NEUTRAL
    luma = np.ascontiguousarray(frame[:height])
    for number, text in enumerate(lines):
        at = line // 2, (number + 1) * line + line // 4
        cv2.putText(luma, text, at, _FONT, scale, _WHITE, thickness, cv2.LINE_AA)
    frame[:height] = luma
    return frame
