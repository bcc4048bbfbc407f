"""The wheel, built and unpacked: what it holds, and that it works with the runtime dependencies alone."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from tests.make.videos import write_video

from clearcall.imaging.frame import Frame

ONLY_IN_THE_PIPELINE = ("torch", "mlflow", "dvc", "onnx", "pandas", "sklearn", "matplotlib", "lightning_fabric")
NOT_COPIED = ("__pycache__", "*.egg-info", "vendor")  # the last comes from `make web`, where it was run
# Arguments: the unpacked wheel, a folder with an image and a video, and a folder for the results.
PROGRAM = f"""
import sys
from pathlib import Path
sys.modules |= dict.fromkeys({ONLY_IN_THE_PIPELINE!r})  # importing one of them fails
import clearcall
from clearcall.media.folder import sharpen_folder
from clearcall.media.images import sharpen_file
from clearcall.media.options import SharpenerOptions
from clearcall.media.video.run import sharpen_video
wheel, source, target = map(Path, sys.argv[1:])
assert Path(clearcall.__file__).is_relative_to(wheel), clearcall.__file__
clearcall.Sharpener("quality")
options = SharpenerOptions("fast", "onnxruntime", 1)
sharpener = clearcall.Sharpener("fast", "onnxruntime", threads=1)
sharpen_file(sharpener, source / "image.png", target / "image.png")
sharpen_video(sharpener, source / "video.mp4", target / "video.mp4")
assert sharpen_folder(options, source, target / "folder").done == 2
from clearcall.cli import main
sys.argv[1:] = ["--help"]
main()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Path:
    """The wheel of a copy of the sources: a build leaves files in the folder that it is started in."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(project / name, folder)
    for name in ("src", "tests"):
        shutil.copytree(project / name, folder / name, ignore=shutil.ignore_patterns(*NOT_COPIED))
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--wheel-dir", "built"]
    subprocess.run([*command, "--quiet"], cwd=folder, check=True)
    (built,) = (folder / "built").iterdir()
    return built


def test_it_holds_every_file_of_the_package_and_nothing_else(wheel: Path, project: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {name for name in names if ".dist-info/" not in name}
    files = (
        path for path in (project / "src" / "clearcall").rglob("*") if path.is_file() and "vendor" not in path.parts
    )
    assert package == {path.relative_to(project / "src").as_posix() for path in files if path.suffix != ".pyc"}
    for name in ("fast", "quality", "best"):
        assert {f"clearcall/runtime/shipped/{name}{suffix}" for suffix in (".onnx", ".json", ".md")} <= package
    assert {"clearcall/temporal/weights.npz", "clearcall/py.typed"} <= package
    assert {Path(name).name for name in names - package} >= {"LICENSE", "NOTICE", "METADATA", "entry_points.txt"}
    assert wheel.stat().st_size < 6 * 2**20


def test_it_requires_the_runtime_alone(wheel: Path, project: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
    required = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", metadata, re.MULTILINE)
    wanted = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    assert required == [re.split(r"[^\w-]", one)[0] for one in wanted]


def test_it_sharpens_without_the_pipeline(wheel: Path, tmp_path: Path, photos: dict[str, Frame]) -> None:
    unpacked, source, target = (tmp_path / name for name in ("unpacked", "source", "target"))
    zipfile.ZipFile(wheel).extractall(unpacked)
    source.mkdir()
    Image.fromarray(photos["chelsea"][:64, :96]).save(source / "image.png")
    write_video(source / "video.mp4", photos["chelsea"])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, unpacked, source, target],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    assert sorted(path.relative_to(target).as_posix() for path in target.rglob("[!.]*.*")) == [
        "folder/image.png",
        "folder/video.mp4",
        "image.png",
        "video.mp4",
    ]
