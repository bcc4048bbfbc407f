"""The MLflow UI on this machine."""

import os
import sys

from clearcall.core.errors import redact
from clearcall.tracking.runs import prepare_store, tracking_uri


def serve(port: int) -> None:
    """Replace this process by the MLflow UI at 127.0.0.1, or say where a team's server is."""
    if (uri := tracking_uri()).startswith("http"):
        print(f"MLFLOW_TRACKING_URI names a server: open {redact(uri)}")
        return
    prepare_store()
    print(f"MLflow UI: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    mlflow = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    os.environ["MLFLOW_BACKEND_STORE_URI"] = uri  # no argument: others see those, and a password may be in it
    os.execv(sys.executable, mlflow)  # noqa: S606  # a list, no shell
