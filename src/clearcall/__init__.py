"""clearcall: sharpen blurred, low-bandwidth video-call pictures in real time on an ordinary CPU."""

import os

__version__ = "0.1.0"

# Some libraries call home when they are imported; nothing in this project may, so it is off before any of them loads.
for _name, _value in {
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GX_ANALYTICS_ENABLED": "false",
}.items():
    os.environ.setdefault(_name, _value)
