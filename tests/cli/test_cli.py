"""The command `clearcall`: its help is instant, its mistakes are messages."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from tests.make.commands import run_command
from tests.make.videos import write_video
from typer.testing import CliRunner

import clearcall
from clearcall.cli import app
from clearcall.core.errors import UserError

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


def in_a_process(program: str, *arguments: str, without: Sequence[str] = (), **environment: str) -> str:
    """Run a program in a process of its own; return what it printed to stdout and then to stderr."""
    given = {name: value for name, value in os.environ.items() if name not in without} | environment
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def commands() -> list[str]:
    """All commands by their words, without the hidden ones of the Makefile."""
    groups = {group.name: group.typer_instance for group in app.registered_groups if group.typer_instance}
    inner = [f"{name} {command.name}" for name, group in groups.items() for command in group.registered_commands]
    return sorted([command.name or "" for command in app.registered_commands if not command.hidden] + inner)


def test_commands_stand_in_three_groups_users_first() -> None:
    assert commands() == [
        *(
            "adapt",
            "bench adapt",
            "bench calls",
            "bench speed",
            "bench video",
            "camera",
            "compare",
            "experiment list",
            "experiment recipe",
        ),
        *("experiment study", "gate", "models diff", "models list", "models promote", "models retire"),
        *("models rollback", "models ship", "models ship-filter", "models show", "opinion create"),
        *("opinion report", "opinion serve", "params", "sharpen", "ui", "web"),
    ]
    said = CliRunner().invoke(app, ["-h"]).output
    panels = [said.index(f"─ {panel} ─") for panel in ("Use", "Measure", "Train and ship")]
    assert panels == sorted(panels)
    for name in {command.split()[0] for command in commands()}:
        assert f"│ {name} " in said
    assert "mend" not in said


@pytest.mark.parametrize("name", [*commands(), "mend", "measured-here", "summary"])
def test_each_commands_help_has_an_example(name: str) -> None:
    for option in ("-h", "--help"):
        done = CliRunner().invoke(app, [*name.split(), option])
        assert done.exit_code == 0
        assert "Example: " in done.output and f"clearcall {name}" in done.output


@pytest.mark.parametrize("arguments", [["--help"], ["sharpen", "-h"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys, time\nfrom clearcall.cli import main\n"
        "try:\n    main()\nfinally:\n"
        f"    print('heavy:', [name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\n"
        "    print('seconds:', time.process_time(), file=sys.stderr)\n"
    )
    *_, heavy, seconds = in_a_process(program, *arguments).splitlines()
    assert heavy == "heavy: []"
    assert float(seconds.removeprefix("seconds: ")) < 2  # of processor time; a fifth of a second on an idle machine


def test_importing_the_package_has_no_effect_but_silencing_others() -> None:
    program = (
        "import os, sys\nbefore = dict(os.environ)\nimport clearcall, clearcall.params, clearcall.cli\n"
        "changed = {k for k in os.environ if os.environ[k] != before.get(k)}\n"
        "import logging\nprint(sorted(changed), logging.getLogger().handlers)\n"
    )
    names = ["DO_NOT_TRACK", "GX_ANALYTICS_ENABLED", "MLFLOW_DISABLE_TELEMETRY", "NO_ALBUMENTATIONS_UPDATE"]
    assert in_a_process(program, without=names) == f"{names} []\n"


def test_the_users_own_choice_of_telemetry_is_kept() -> None:
    program = "import os, clearcall; print(os.environ['MLFLOW_DISABLE_TELEMETRY'])"
    assert in_a_process(program, MLFLOW_DISABLE_TELEMETRY="false") == "false\n"


@pytest.mark.skipif(
    not Path("/proc/self/smaps").is_file() or not Path("/sys/kernel/mm/transparent_hugepage").is_dir(),
    reason="this kernel has no transparent huge pages",
)
def test_large_tensors_ask_for_huge_pages() -> None:
    """Without them, half of a large network's time on an image goes into getting memory page by page."""
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
    assert in_a_process(program, without=["THP_MEM_ALLOC_ENABLE"]) == "True\n"


def test_version_is_that_of_the_installed_package() -> None:
    from importlib.metadata import version

    done = run_command("--version")
    assert (done.returncode, done.stdout) == (0, f"clearcall {clearcall.__version__}\n")
    assert version("clearcall") == clearcall.__version__


def test_the_entry_point_is_installed() -> None:
    script = Path(sys.executable).with_name("clearcall")
    if not script.exists():
        pytest.skip("clearcall is not installed in this environment")
    done = subprocess.run([str(script), "--version"], capture_output=True, text=True, check=False)
    assert done.stdout == f"clearcall {clearcall.__version__}\n"


def test_right_params_are_said_to_be_right(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    done = run_command("params")
    assert (done.returncode, done.stdout, done.stderr) == (0, "params.yaml is right\n", "")


def test_wrong_params_are_one_message_and_exit_code_1(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (project / "params.yaml").read_text(encoding="utf-8")
    assert "  min_fps: 30\n" in text
    (tmp_path / "params.yaml").write_text(text.replace("  min_fps: 30\n", "  min_fbs: 30\n"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    done = run_command("params")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "error: params.yaml is not right:",
        "  gate.min_fps: missing; add it",
        "  gate.min_fbs: unknown key; remove it or correct its name",
    ]


@pytest.mark.parametrize("name", ["gate", "params", "summary"])
def test_outside_a_project_each_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_command(name)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: params.yaml is not in {tmp_path}")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shapen"], "Did you mean 'sharpen'?"),
        (["bench", "sped"], "Did you mean 'speed'?"),
        (["sharpen", "--strenght", "1"], "--strength"),
        (["--quick"], "No such option: --quick"),
        (["image", "in.png", "out.png"], "No such command 'image'"),
    ],
)
def test_an_unknown_command_or_option_is_exit_code_2(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert said in done.output


def test_the_address_of_a_teams_mlflow_is_shown_without_the_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://somebody:secret@mlflow.example.org/team")
    done = run_command("ui")
    assert done.returncode == 0
    assert done.stdout == "MLFLOW_TRACKING_URI names a server: open https://mlflow.example.org/team\n"


def test_no_command_shows_the_help() -> None:
    done = run_command()
    assert "Usage" in done.stdout + done.stderr
    assert "gate" in done.stdout + done.stderr


def test_a_summary_without_reports_says_what_to_run(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(project / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    done = run_command("summary")
    assert done.returncode == 1
    assert "dvc repro" in done.stderr
    assert "Traceback" not in done.stderr


ONE_RUNTIME = ("--provider", "onnxruntime", "--threads", "1")


@pytest.fixture
def place(photos: "dict[str, npt.NDArray[np.uint8]]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: an image, a file and a folder with an image, a corrupt one and a text."""
    (tmp_path / "in").mkdir()
    Image.fromarray(photos["chelsea"][50:150, 100:221]).save(tmp_path / "in.png")
    Image.fromarray(photos["chelsea"][:60, :80]).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.jpg").write_bytes(b"no image")
    (tmp_path / "in" / "c.txt").write_bytes(b"")
    (tmp_path / "mine.png").write_bytes(b"mine")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("place")
def test_an_image_is_sharpened(student_onnx: "tuple[nn.Module, Path]") -> None:
    from clearcall.runtime.sharpener import Sharpener

    model = str(student_onnx[1])
    done = run_command("sharpen", "in.png", "out.tif", "--model", model, *ONE_RUNTIME, "--strength", "0.5")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out.tif (onnxruntime, 1 thread)\n", "")
    with Image.open("in.png") as image, Image.open("out.tif") as result:
        expected = Sharpener(model, "onnxruntime", 1, strength=0.5)(np.asarray(image))
        np.testing.assert_array_equal(np.asarray(result), expected)


@pytest.mark.parametrize(
    "arguments", [["sharpen", "in.png", "mine.png"], ["compare", "in.png", "--output", "mine.png"]]
)
def test_a_result_that_exists_is_replaced_only_if_that_is_wanted(
    student_onnx: "tuple[nn.Module, Path]", place: Path, arguments: list[str]
) -> None:
    arguments = [*arguments, "--model", str(student_onnx[1]), *ONE_RUNTIME]
    refused = CliRunner().invoke(app, arguments)
    assert str(refused.exception) == "mine.png exists: name another file for the result, or --overwrite to replace it"
    assert (place / "mine.png").read_bytes() == b"mine"
    assert CliRunner().invoke(app, [*arguments, "--overwrite"]).exit_code == 0
    with Image.open("mine.png") as image:
        assert image.format == "PNG"


def test_of_a_folder_what_can_be_is_sharpened_with_a_count_at_the_end(
    student_onnx: "tuple[nn.Module, Path]", place: Path
) -> None:
    arguments = ("sharpen", "in", "out", "--model", str(student_onnx[1]), *ONE_RUNTIME)
    done = run_command(*arguments)
    assert done.returncode == 1
    assert done.stdout == "1 sharpened, 0 skipped, 1 failed, 1 ignored (onnxruntime, 1 thread)\n"
    lines = done.stderr.splitlines()
    assert lines[0].startswith("failed: in/b.jpg cannot be read")
    assert lines[-2:] == [
        "ignored, neither PNG, JPEG, WebP, TIFF, AVIF, HEIC, BMP or GIF nor a video: c.txt",
        "error: 1 of the files could not be sharpened; each is named above",
    ]
    (place / "in" / "b.jpg").unlink()
    again = CliRunner().invoke(app, arguments)
    assert (again.exit_code, again.stdout) == (0, "0 sharpened, 1 skipped, 0 failed, 1 ignored (nothing to do)\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sharpen in.png out.gif", "out.gif must end in one of .png"),
        ("sharpen in.png", "name a file for the result: clearcall sharpen in.png OUT"),
        ("sharpen in.png -", "in.png is an image, and a pipe carries video: name a file for the result"),
        ("sharpen in.png in.png/out.png", "in.png is a file or below one: name a folder for out.png"),
        ("sharpen in.png in", "in is a folder and in.png a file: name a file, such as in/sharp_in.png"),
        ("sharpen none.png out.png", "there is no image none.png"),
        ("sharpen none out.mp4", "there is no image, video or folder none"),
        (
            "sharpen in.png out.png --crf 3 --split",
            "in.png is an image: leave out --split, --crf, which a single video",
        ),
        ("sharpen in.png --dry-run --no-past-frames", "in.png is an image: leave out --dry-run, --no-past-frames"),
        ("sharpen in out --dry-run", "in is a folder: leave out --dry-run"),
        ("sharpen in", "name a folder for the result"),
        ("sharpen in mine.png", "mine.png is a file or below one: name a folder"),
        ("sharpen in.png out.png --model fasst", "there is no model 'fasst': did you mean fast? give one of"),
        ("sharpen in.png out.png --model in", "the model in is a folder: name the ONNX file in it"),
        ("camera in", "in is a folder: name a camera or a video; `clearcall sharpen` takes a folder"),
        ("compare none.png", "there is no image none.png"),
        ("compare none", "there is no folder none"),
        ("compare in.png --output in", "in is a folder: name a file"),
    ],
)
def test_what_cannot_be_done_is_one_message(place: Path, arguments: str, message: str) -> None:
    before = sorted(place.rglob("*"))
    done = CliRunner().invoke(app, [*arguments.split(), *ONE_RUNTIME])
    assert isinstance(done.exception, UserError) and str(done.exception).startswith(message)
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [("--strength 3", "--strength"), ("--provider cuda", "--provider"), ("--threads 0", "--threads")],
)
def test_values_out_of_range_are_exit_code_2(arguments: str, message: str) -> None:
    done = CliRunner().invoke(app, ["sharpen", "in.png", "out.png", *arguments.split()])
    assert done.exit_code == 2 and message in done.output


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    for name in ("skimage", "skimage.measure"):
        monkeypatch.setitem(sys.modules, name, None)
    (place / "in" / "b.jpg").unlink()
    done = run_command("compare", "in", "--model", "fast", *ONE_RUNTIME)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1,
        "error: skimage is not installed: pip install 'clearcall[pipeline]'",
    )


@pytest.mark.parametrize(("package", "extra"), [("fastapi", "web"), ("yaml", "pipeline")])
def test_what_a_server_lacks_is_told_with_its_extra(package: str, extra: str) -> None:
    program = f"""if True:
        import sys
        sys.modules["{package}"], sys.argv[1:] = None, ["opinion", "serve", "study"]
        from clearcall.cli import main
        main()"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == f"error: {package} is not installed: pip install 'clearcall[{extra}]'\n"


def test_recipes_and_studies_are_listed_and_printed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    listed = CliRunner().invoke(app, ["experiment", "list"]).output
    assert re.search(r"luminous +published recipe ", listed) and re.search(r"ablation +study ", listed)
    printed = CliRunner().invoke(app, ["experiment", "recipe", "fast", "--print"]).output
    assert "-S ++distill_student.model.arguments.channels=8 " in printed


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot hold a program to one core")
def test_low_power_holds_one_core(tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    Image.new("RGB", (64, 64)).save(tmp_path / "in.png")
    try:
        done = run_command("sharpen", str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--low-power")
        held = os.sched_getaffinity(0)
    finally:
        os.sched_setaffinity(0, cores)
    assert done.returncode == 0 and (tmp_path / "out.png").is_file()
    assert len(held) == 1


def test_low_power_is_refused_where_a_program_cannot_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    done = run_command("camera", "call.mp4", "--low-power")
    assert done.returncode == 1 and "use --threads 1 instead" in done.stderr


@pytest.mark.parametrize("name", ["out.png", "out.webm"])
def test_a_result_that_cannot_be_written_is_refused_before_adapting(
    photos: "dict[str, npt.NDArray[np.uint8]]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def adapt(*_: object) -> None:
        pytest.fail("adapted for nothing")

    monkeypatch.setattr("clearcall.training.adapt.adapt", adapt)
    source = write_video(tmp_path / "in.mp4", photos["coffee"], [0])
    done = CliRunner().invoke(app, ["sharpen", str(source), str(tmp_path / name), "--adapt", "--codec", "h264"])
    assert isinstance(done.exception, UserError)
    assert re.search(r"must end in one of|cannot hold h264", str(done.exception))
