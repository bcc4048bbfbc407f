"""The command `clearcall`: its help is instant, its mistakes are messages."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import clearcall

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import nn

HEAVY = (
    "torch",
    "mlflow",
    "albumentations",
    "onnxruntime",
    "great_expectations",
    "sklearn",
    "skimage",
    "pandas",
    "cv2",
    "av",
)


def command(*arguments: str, cwd: Path | None = None, program: str = "") -> "subprocess.CompletedProcess[str]":
    """Run the command as its entry point does, in a process of its own."""
    text = program or "from clearcall.cli import main; main()"
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, "-c", text, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def commands() -> list[str]:
    from clearcall.cli import app

    return [
        registered.callback.__name__.replace("_", "-") for registered in app.registered_commands if registered.callback
    ]


def test_help_lists_every_command_and_what_it_does() -> None:
    done = command("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert {"gate", "params", "summary"} <= set(commands())
    for name in commands():
        assert name in done.stdout
    assert "Sharpen blurred" in done.stdout
    assert "Fail with exit code 1 unless the trained student may be shipped" in done.stdout


@pytest.mark.parametrize("name", ["gate", "params", "summary", "ui", "image", "folder", "camera", "benchmark-films"])
def test_each_commands_help_has_an_example(name: str) -> None:
    done = command(name, "--help")
    assert done.returncode == 0
    assert "Example:" in done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["gate", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys, time\nstarted = time.perf_counter()\nfrom clearcall.cli import main\n"
        "try:\n    main()\nfinally:\n"
        f"    print('heavy:', [name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\n"
        "    print('seconds:', time.perf_counter() - started, file=sys.stderr)\n"
    )
    done = command(*arguments, program=program)
    assert done.returncode == 0
    heavy, seconds = done.stderr.splitlines()
    assert heavy == "heavy: []"
    assert float(seconds.removeprefix("seconds: ")) < 5  # a fifth of a second on an idle machine


def test_importing_the_package_has_no_effect_but_silencing_others() -> None:
    program = (
        "import os, sys\nbefore = dict(os.environ)\nimport clearcall, clearcall.params, clearcall.cli\n"
        "changed = {k for k in os.environ if os.environ[k] != before.get(k)}\n"
        "import logging\nprint(sorted(changed), logging.getLogger().handlers)\n"
    )
    names = ["DO_NOT_TRACK", "GX_ANALYTICS_ENABLED", "MLFLOW_DISABLE_TELEMETRY", "NO_ALBUMENTATIONS_UPDATE"]
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{names} []\n"


def test_the_users_own_choice_of_telemetry_is_kept() -> None:
    program = "import os, clearcall; print(os.environ['MLFLOW_DISABLE_TELEMETRY'])"
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "false"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "false\n"


@pytest.mark.skipif(
    not Path("/proc/self/smaps").is_file() or not Path("/sys/kernel/mm/transparent_hugepage").is_dir(),
    reason="this kernel has no transparent huge pages",
)
def test_large_tensors_ask_for_huge_pages() -> None:
    """Without them, half of a large network's time on a picture goes into getting memory page by page."""
    program = (
        "import clearcall, torch\n"
        "tensor = torch.ones(2**24)\n"
        "place = tensor.data_ptr()\n"
        "within = False\n"
        "for line in open('/proc/self/smaps'):\n"
        "    first = line.split()[0]\n"
        "    if '-' in first and not first.endswith(':'):\n"
        "        start, end = (int(part, 16) for part in first.split('-'))\n"
        "        within = start <= place < end\n"
        "    elif within and first == 'VmFlags:':\n"
        "        print('hg' in line.split())\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_version_is_that_of_the_installed_package() -> None:
    from importlib.metadata import version

    done = command("--version")
    assert (done.returncode, done.stdout) == (0, f"clearcall {clearcall.__version__}\n")
    assert version("clearcall") == clearcall.__version__


def test_the_entry_point_is_installed() -> None:
    script = Path(sys.executable).with_name("clearcall")
    if not script.exists():
        pytest.skip("clearcall is not installed in this environment")
    done = subprocess.run([str(script), "--version"], capture_output=True, text=True, check=False)
    assert done.stdout == f"clearcall {clearcall.__version__}\n"


def test_right_params_are_said_to_be_right(project: Path) -> None:
    done = command("params", cwd=project)
    assert (done.returncode, done.stdout, done.stderr) == (0, "params.yaml is right\n", "")


def test_wrong_params_are_one_message_and_exit_code_1(project: Path, tmp_path: Path) -> None:
    text = (project / "params.yaml").read_text(encoding="utf-8")
    assert "  min_fps: 30\n" in text
    (tmp_path / "params.yaml").write_text(text.replace("  min_fps: 30\n", "  min_fbs: 30\n"), encoding="utf-8")
    done = command("params", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: params.yaml is not right:",
        "  gate.min_fps: missing; add it",
        "  gate.min_fbs: unknown key; remove it or correct its name",
    ]


@pytest.mark.parametrize("name", ["gate", "params", "summary"])
def test_outside_a_project_each_command_says_so(tmp_path: Path, name: str) -> None:
    done = command(name, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: params.yaml is not in {tmp_path}")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["sharpen-everything"], ["--quick"], ["gate", "--now"]])
def test_an_unknown_command_or_option_is_exit_code_2(arguments: list[str]) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert arguments[-1] in done.stderr
    assert "Traceback" not in done.stderr


def test_the_address_of_a_teams_mlflow_is_shown_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://somebody:secret@mlflow.example.org/team")
    done = command("ui", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout == "MLFLOW_TRACKING_URI names a server: open https://mlflow.example.org/team\n"


def test_no_command_shows_the_help() -> None:
    done = command()
    assert "Usage" in done.stdout + done.stderr
    assert "gate" in done.stdout + done.stderr


def test_a_summary_without_reports_says_what_to_run(project: Path, tmp_path: Path) -> None:
    shutil.copy(project / "params.yaml", tmp_path)
    done = command("summary", cwd=tmp_path)
    assert done.returncode == 1
    assert "dvc repro" in done.stderr
    assert "Traceback" not in done.stderr


ONE_RUNTIME = ("--provider", "onnxruntime", "--threads", "1")


def test_image_sharpens_one_picture(
    student_onnx: "tuple[nn.Module, Path]", photos: "dict[str, npt.NDArray[np.uint8]]", tmp_path: Path
) -> None:
    from clearcall.runtime.sharpener import Sharpener

    pixels = photos["chelsea"][50:150, 100:221]
    Image.fromarray(pixels).save(tmp_path / "in.png")
    model = str(student_onnx[1])
    done = command("image", "in.png", "out.tif", "--model", model, *ONE_RUNTIME, "--strength", "0.5", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out.tif (onnxruntime, 1 thread)\n", "")
    with Image.open(tmp_path / "out.tif") as result:
        expected = Sharpener(model, "onnxruntime", 1, strength=0.5)(pixels)
        np.testing.assert_array_equal(np.asarray(result), expected)


def test_a_result_that_exists_is_replaced_only_if_that_is_wanted(
    student_onnx: "tuple[nn.Module, Path]", photos: "dict[str, npt.NDArray[np.uint8]]", tmp_path: Path
) -> None:
    Image.fromarray(photos["chelsea"][50:150, 100:221]).save(tmp_path / "in.png")
    (tmp_path / "out.png").write_bytes(b"mine")
    for name in ("image", "compare"):
        arguments = [name, "in.png", "out.png", "--model", str(student_onnx[1]), *ONE_RUNTIME]
        refused = command(*arguments, cwd=tmp_path)
        assert refused.returncode == 1
        assert refused.stderr == (
            "error: out.png exists: name another file for the result, or --overwrite to replace it\n"
        )
        assert (tmp_path / "out.png").read_bytes() == b"mine"
        assert command(*arguments, "--overwrite", cwd=tmp_path).returncode == 0
        with Image.open(tmp_path / "out.png") as image:
            assert image.format == "PNG"
        (tmp_path / "out.png").write_bytes(b"mine")


def test_folder_sharpens_what_it_can_and_ends_with_a_count(
    student_onnx: "tuple[nn.Module, Path]", photos: "dict[str, npt.NDArray[np.uint8]]", tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(photos["chelsea"][:60, :80]).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.jpg").write_bytes(b"no picture")
    (tmp_path / "in" / "c.txt").write_bytes(b"")
    arguments = ("folder", "in", "out", "--model", str(student_onnx[1]), *ONE_RUNTIME)
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == "1 sharpened, 0 skipped, 1 failed, 1 ignored (onnxruntime, 1 thread)\n"
    lines = done.stderr.splitlines()
    assert lines[0].startswith("failed: in/b.jpg cannot be read")
    assert lines[-2:] == [
        "ignored, not PNG, JPEG, WebP or TIFF: c.txt",
        "error: 1 of the pictures could not be sharpened; each is named above",
    ]
    (tmp_path / "in" / "b.jpg").unlink()
    done = command(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "0 sharpened, 1 skipped, 0 failed, 1 ignored (nothing to do)\n")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["image", "in.png", "out.gif"], 1, "error: out.gif must end in one of"),
        (["image", "none.png", "out.png"], 1, "error: there is no picture none.png"),
        (["folder", "none", "out"], 1, "error: there is no folder none"),
        (["compare", "none.png"], 1, "error: there is no picture none.png"),
        (["image", "in.png", "out.png", "--strength", "3"], 2, "--strength"),
        (["folder", "in", "out", "--provider", "cuda"], 2, "--provider"),
    ],
)
def test_what_cannot_be_sharpened_is_one_message(
    student_onnx: "tuple[nn.Module, Path]", tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    options = ["--model", str(student_onnx[1]), *(ONE_RUNTIME if code == 1 else [])]
    done = command(*arguments, *options, cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
