"""What a screen shows: made-up pages of text."""

from string import ascii_letters, digits

import cv2
import numpy as np

from clearcall.metrics import Frame

_LINE = 9, 28  # pixels


def text_page(height: int, width: int, draw: np.random.Generator) -> Frame:
    """Return a page of lines of letters, grey RGB, dark on light or light on dark, lit from one side."""
    line = int(draw.integers(*_LINE))
    ink, paper = draw.permutation([draw.uniform(0, 90), draw.uniform(170, 255)]).tolist()
    page = np.full((height, width), paper, np.uint8)
    letters = np.array([*ascii_letters, *digits, *" " * 12])
    for bottom in range(line, height + line, round(1.6 * line)):
        text = "".join(draw.choice(letters, width // 4))
        scale, thickness = line / 30, 1 + line // 20  # 30 is about the height of a line at scale 1
        cv2.putText(page, text, (line, bottom), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thickness, cv2.LINE_AA)
    lit = page * np.linspace(draw.uniform(0.8, 1), 1, width)
    return np.dstack([np.rint(lit).astype(np.uint8)] * 3)
