"""Build the browser extension: its folder, or a zip file with the same bytes each time."""

import sys
import zipfile
from pathlib import Path

from clearcall.core.files import SHIPPED, atomic_path
from clearcall.web.server import NETWORK_RUNTIME, STATIC, check_runtime

SOURCE = Path(__file__).with_name("extension")
MODELS = ("fast", "quality")
_PROJECT = Path(__file__).parents[3]
_SHARED = ("sharpen.js", "worker.js")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip file has
_MODE = 0o100644 << 16


def extension_files() -> dict[str, Path]:
    """Return the extension's files by their names in it, sorted; raises UserError without the JavaScript runtime."""
    check_runtime()
    files = {path.name: path for path in SOURCE.iterdir() if path.is_file()}
    files |= {name: STATIC / name for name in _SHARED}
    files |= {f"vendor/{name}": STATIC / "vendor" / name for name in NETWORK_RUNTIME}
    files |= {name: _PROJECT / name for name in ("LICENSE", "NOTICE")}
    files |= {f"models/{name}.onnx": SHIPPED / f"{name}.onnx" for name in MODELS}
    return dict(sorted(files.items()))


def write_zip(path: Path) -> None:
    """Write the extension as a zip file."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, source in extension_files().items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type, entry.external_attr, entry.create_system = zipfile.ZIP_DEFLATED, _MODE, 3
            archive.writestr(entry, source.read_bytes())


if __name__ == "__main__":
    write_zip(Path(sys.argv[1]))
