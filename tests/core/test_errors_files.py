"""Errors become a message and an exit code; files are complete or not there."""

import errno
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clearcall.core import errors
from clearcall.core.console import warn
from clearcall.core.errors import UserError
from clearcall.core.files import atomic_folder, atomic_path, read_json, sha256_of, write_csv, write_json, write_text
from clearcall.core.locks import hold_lock, release_lock


def raiser(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


def run_program(body: str, *, stdout: int | None = subprocess.PIPE) -> "subprocess.CompletedProcess[str]":
    program = f"import sys\nfrom clearcall.core import errors\ndef main():\n    {body}\nerrors.run(main)\n"
    return subprocess.run(
        [sys.executable, "-c", program], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
    )


def exit_code(main: Callable[[], None]) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        errors.run(main)
    return caught.value.code


def test_a_users_mistake_is_one_message_and_exit_code_1() -> None:
    done = run_program("raise errors.UserError('seven is not allowed: take five')")
    assert done.returncode == 1
    assert done.stderr == "error: seven is not allowed: take five\n"
    assert done.stdout == ""


def test_a_bug_shows_its_traceback() -> None:
    done = run_program("{}['nothing']")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "KeyError: 'nothing'" in done.stderr
    with pytest.raises(ZeroDivisionError):
        errors.run(raiser(ZeroDivisionError()))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET http://user:secret@host:5000/api failed", "GET http://host:5000/api failed"),
        ("'https://token-in-place-of-a-user@host/'", "'https://host/'"),
        ("postgresql+psycopg2://u:p@ss@host/db?sslmode=off", "postgresql+psycopg2://host/db?sslmode=off"),
        ("mysql://host/db?user=me&password=secret&x=1", "mysql://host/db?user=me&password=***&x=1"),
        ("models:/clearcall@champion and a@b.org", "models:/clearcall@champion and a@b.org"),
    ],
)
def test_credentials_in_urls_are_not_shown(text: str, shown: str) -> None:
    assert errors.redact(text) == shown


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MLFLOW_TRACKING_URI", "http://user:se/cr@et:1@host:5000"),  # which urllib would cut at the slash
        ("MLFLOW_TRACKING_URI", "http://user:se%2Fcr%40et%3A1@host:5000"),
        ("MLFLOW_TRACKING_PASSWORD", "se/cr@et:1"),
        ("MLFLOW_TRACKING_TOKEN", "se/cr@et:1"),
    ],
)
def test_what_mlflow_is_given_to_log_in_is_never_printed(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In messages, warnings and even a bug's traceback, whether quoted as an address or alone."""
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    warn(value)
    said = capsys.readouterr().err
    for error in (
        UserError(f"{value} is away"),
        UserError("login se/cr@et:1 is wrong"),
        ValueError("login se/cr@et:1 is wrong"),
        ValueError(value),
    ):
        try:
            errors.run(raiser(error))
        except SystemExit:
            pass
        except ValueError:
            sys.excepthook(*sys.exc_info())
        printed = capsys.readouterr().err
        assert ("Traceback" in printed) == isinstance(error, ValueError)
        said += printed
    for secret in ("se/cr@et:1", "se%2Fcr%40et%3A1"):
        assert secret not in said


def test_success_says_nothing() -> None:
    done = run_program("pass")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_missing_permission_names_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(raiser(PermissionError(errno.EACCES, "Permission denied", "data/raw"))) == 1
    written = capsys.readouterr().err
    assert written.startswith("error: no permission to use data/raw")
    assert written.count("\n") == 1


@pytest.mark.parametrize("filename", ["data/pairs/train-000.bin", None])
def test_a_full_disk_says_what_to_do(capsys: pytest.CaptureFixture[str], filename: str | None) -> None:
    assert exit_code(raiser(OSError(errno.ENOSPC, "No space left on device", filename))) == 1
    written = capsys.readouterr().err
    assert "no space left on the disk" in written
    assert "params.yaml" in written
    assert ("data/pairs/train-000.bin" in written) == (filename is not None)
    assert "None" not in written


@pytest.mark.parametrize("named", [True, False])
def test_a_full_disk_is_told_with_the_name_that_the_user_gave(tmp_path: Path, *, named: bool) -> None:
    def fill() -> None:
        with atomic_path(tmp_path / "sharp.png") as temporary:
            raise OSError(errno.ENOSPC, "No space left on device", *([str(temporary)] if named else []))

    with pytest.raises(OSError, match="No space") as caught:
        fill()
    assert caught.value.filename == str(tmp_path / "sharp.png")


def test_a_folder_that_must_not_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*, dir: Path, **_: object) -> None:  # root may write anywhere, so a folder's mode would not do
        raise PermissionError(errno.EACCES, "Permission denied", str(dir / ".sharp.png.clearcall-x.png"))

    monkeypatch.setattr("clearcall.core.files.tempfile.mkstemp", refuse)
    with pytest.raises(PermissionError) as caught:
        write_text(tmp_path / "sharp.png", "x")
    assert caught.value.filename == str(tmp_path)


def test_another_operating_system_error_is_a_bug() -> None:
    with pytest.raises(OSError, match="Bad address"):
        errors.run(raiser(OSError(errno.EFAULT, "Bad address")))


def test_an_interruption_is_exit_code_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(raiser(KeyboardInterrupt())) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_exit_codes_of_the_program_itself_pass_through() -> None:
    assert exit_code(raiser(SystemExit(5))) == 5


def test_a_reader_that_leaves_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = run_program("print('x' * 1000000, flush=True)", stdout=write)
    finally:
        os.close(write)
    assert done.returncode == 1
    assert done.stderr == ""


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_atomic_path_appears_with_all_its_content(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("half", encoding="utf-8")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"  # some writers go by it
    assert path.read_text(encoding="utf-8") == "half"
    assert list(path.parent.iterdir()) == [path]


def test_a_name_may_be_as_long_as_names_may_be(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 125 + ".png")  # 254 bytes, and 255 may be
    write_text(path, "x")
    assert path.read_text(encoding="utf-8") == "x"
    with atomic_folder(tmp_path / ("ü" * 127)):
        pass
    assert (tmp_path / ("ü" * 127)).is_dir()


@pytest.mark.parametrize("before", ["before", None])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_failed_atomic_path_keeps_what_was_there(
    tmp_path: Path, before: str | None, error: type[BaseException]
) -> None:
    path = tmp_path / "file.txt"
    if before:
        path.write_text(before, encoding="utf-8")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half", encoding="utf-8")
            raise error

    with pytest.raises(error):
        fail()
    assert {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()} == (
        {"file.txt": before} if before else {}
    )


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_files_and_folders_are_as_readable_as_the_umask_allows(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        write_text(tmp_path / "file.txt", "x")
        with atomic_folder(tmp_path / "folder") as temporary:
            (temporary / "inside").touch()
        assert os.umask(mask) == mask  # looking at it has not changed it
    assert mode(tmp_path / "file.txt") == 0o666 & ~mask
    assert mode(tmp_path / "folder") == 0o777 & ~mask


def test_an_atomic_folder_replaces_the_one_before(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with atomic_folder(folder) as temporary:
        (temporary / "old").touch()
        assert not folder.exists()
    with atomic_folder(folder) as temporary:
        assert list(temporary.iterdir()) == []
        (temporary / "new").touch()
        assert [path.name for path in folder.iterdir()] == ["old"]
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert list(folder.parent.iterdir()) == [folder]


def test_a_failed_atomic_folder_keeps_the_one_before(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").write_text("kept", encoding="utf-8")

    def fail() -> None:
        with atomic_folder(folder) as temporary:
            (temporary / "new").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [path.name for path in folder.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_numbers_that_json_does_not_have(tmp_path: Path, value: float) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"ssim": 0.9})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"ssim": value})
    assert read_json(path) == {"ssim": 0.9}
    assert list(tmp_path.iterdir()) == [path]


def test_json_keeps_the_order_of_keys_and_is_the_same_each_time(tmp_path: Path) -> None:
    document = {"z": 1, "a": {"y": [1.5, None], "b": "Grüße"}}
    write_json(tmp_path / "one.json", document)
    time.sleep(0.01)
    write_json(tmp_path / "two.json", document)
    text = (tmp_path / "one.json").read_text(encoding="utf-8")
    assert text == (tmp_path / "two.json").read_text(encoding="utf-8")
    assert list(json.loads(text)) == ["z", "a"]
    assert text.endswith("}\n")


def test_sha256_is_the_published_one(tmp_path: Path) -> None:
    """FIPS 180-2, appendix B.1."""
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_sigterm_leaves_nothing_half_written(tmp_path: Path) -> None:
    program = (
        "import time\nfrom pathlib import Path\nfrom clearcall.core import errors\n"
        "from clearcall.core.files import atomic_path\n"
        "def main():\n    with atomic_path(Path('half')):\n        print('shown', flush=True)\n        time.sleep(60)\n"
        "errors.run(main)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"shown\n"
        assert len(list(tmp_path.iterdir())) == 1
        process.terminate()
    assert process.returncode == 143
    assert list(tmp_path.iterdir()) == []


WRITER = """
import sys, time
from pathlib import Path
from clearcall.core.files import atomic_folder, atomic_path
with atomic_path(Path("video.mp4")) as file, atomic_folder(Path("pairs")) as folder:
    (folder / "half").touch()
    print("shown", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    users = [tmp_path / ".video.mp4.abcdefgh.mp4", tmp_path / ".settings"]
    (tmp_path / "video.mp4").write_bytes(b"before")
    for file in users:
        file.touch()
    command = [sys.executable, "-c", WRITER]
    with (
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as killed,
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as living,
    ):
        for process in (killed, living):
            assert process.stdout is not None and process.stdout.readline() == b"shown\n"
        users.append(tmp_path / "video.mp4")
        of_both = {path for path in tmp_path.iterdir() if path not in users}
        assert len(of_both) == 4
        killed.kill()
        killed.wait()
        write_text(tmp_path / "other.txt", "x")
        left = {path for path in tmp_path.iterdir() if path not in [*users, tmp_path / "other.txt"]}
        assert len(left) == 2 and left < of_both
        assert sorted(path.is_dir() for path in left) == [False, True]
        living.terminate()
    assert all(file.exists() for file in users)
    assert (tmp_path / "video.mp4").read_bytes() == b"before"


def test_many_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each process cleans the folder once, while others create their temporary files in it."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom clearcall.core import files\n"
        "for number in range(40):\n"
        "    files._cleaned.clear()\n"
        "    files.write_text(Path(sys.argv[1]) / f'{sys.argv[2]}-{number}', 'x')\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(name)]) for name in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len(list(tmp_path.iterdir())) == 120


HOLDER = """
import time
from pathlib import Path
from clearcall.core.locks import hold_lock
hold_lock(Path("locks") / "one.lock", "trains")
hold_lock(Path("locks") / "one.lock", "again, which it may")
print("shown", flush=True)
time.sleep(60)
"""


def test_a_lock_names_its_holder_and_goes_with_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None and first.stdout.readline() == b"shown\n"
        with subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as second:
            assert second.stdout is not None and second.stderr is not None
            assert f"waiting until process {first.pid} (trains) ends" in second.stderr.readline()
            first.kill()
            assert second.stdout.readline() == "shown\n"
            second.kill()


def test_a_released_lock_leaves_no_file_and_can_be_held_again(tmp_path: Path) -> None:
    path = tmp_path / "one.lock"
    for _ in range(2):
        hold_lock(path, "trains")
        assert path.read_text() == f"{os.getpid()} (trains)"
        release_lock(path)
        assert list(tmp_path.iterdir()) == []
    release_lock(path)


STAGE = """
import time
from pathlib import Path
from clearcall.core import errors
from clearcall.core.files import atomic_path
def main():
    with atomic_path(Path("half")):
        print('shown', flush=True)
        time.sleep(60)
errors.run(main)
"""


def test_a_stage_ends_with_the_dvc_that_runs_it(tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(STAGE)
    dvc = f"import subprocess\nsubprocess.run([{sys.executable!r}, 'stage.py'])"
    environment = {**os.environ, "DVC_STAGE": "stage"}
    with subprocess.Popen(
        [sys.executable, "-c", dvc], cwd=tmp_path, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"shown\n"
        process.kill()
        # The pipe is at its end when the stage, which writes to it, has ended.
        assert process.stdout.read() == b""
    assert not (tmp_path / "half").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".half")] == []


def test_a_program_outside_dvc_outlives_the_shell_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(STAGE.replace("60", "1") + "print('done', flush=True)")
    shell = f"import subprocess\nsubprocess.run([{sys.executable!r}, 'program.py'])"
    with subprocess.Popen([sys.executable, "-c", shell], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        assert process.stdout.read() == b"done\n"


_INTERRUPTED = """
import signal
from clearcall.core.processes import stopped_by_interrupt
before = signal.getsignal(signal.SIGTERM)
with stopped_by_interrupt() as stop:
    signal.raise_signal(signal.SIGINT)
    assert stop.is_set()
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        print("interrupted")
assert signal.getsignal(signal.SIGTERM) == before
"""


def test_what_hangs_ends_by_a_second_interrupt() -> None:
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED], capture_output=True, text=True, check=True)
    assert done.stdout == "interrupted\n"


def test_a_list_without_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"list\.csv would have no lines"):
        write_csv(tmp_path / "list.csv", [])
    assert list(tmp_path.iterdir()) == []
