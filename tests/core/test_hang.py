"""A test that hangs in C, where no signal reaches Python, ends by its name."""

import subprocess
import sys
from pathlib import Path

HANGS = """
import ctypes

def test_that_hangs():
    lock = ctypes.create_string_buffer(64)  # a mutex of POSIX that is free
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(lock)
"""


def test_a_test_that_hangs_in_c_ends_by_its_name(project: Path, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(HANGS)
    command = [sys.executable, "-m", "pytest", "-c", str(project / "pyproject.toml"), "--timeout=1", "test_it.py"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1 and "in test_that_hangs" in ended.stdout
