"""A real Dask scheduler with real workers in place of the process pool."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.make.networks import stored_networks

from clearcall.core.errors import UserError
from clearcall.core.files import sha256_of
from clearcall.core.processes import worker_pool
from clearcall.data.clips import Clip, read_clip
from clearcall.data.degrade import write
from clearcall.data.manifest import ImageRecord
from clearcall.data.pairs import PairRecord, read_pairs
from clearcall.evaluation.calls import measure_clips
from clearcall.evaluation.quality import clean_psnr_db, score_contenders
from clearcall.imaging.frame import Contender, Frame, Restore
from clearcall.imaging.looks import Look
from clearcall.params import DegradePairs
from clearcall.runtime.sharpener import Sharpener

distributed = pytest.importorskip("distributed", reason="Dask is not installed: run `make cluster`")
SECONDS = 60

_degrade_image = write._degrade_image


def dask(*arguments: str, **settings: str) -> "subprocess.Popen[bytes]":
    # The workers import this file.
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments], env={**os.environ, "PYTHONPATH": paths, **settings}
    )


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of a scheduler without workers."""
    file = tmp_path_factory.mktemp("dask") / "scheduler.json"
    arguments = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    process = dask(*arguments, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1")  # not 3: each takes seconds
    until = time.monotonic() + SECONDS
    while not file.exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    yield json.loads(file.read_text())["address"]
    process.terminate()
    process.wait(SECONDS)


@pytest.fixture
def workers(scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], None]]:
    """Start workers, with so many threads each, which the pool then uses."""
    monkeypatch.setenv("CLEARCALL_SCHEDULER", scheduler)
    started = []

    def start(count: int, threads: int = 1) -> None:
        shape = ["--nworkers", str(count), "--nthreads", str(threads), "--local-directory", str(tmp_path / "dask")]
        started.append(dask("worker", scheduler, *shape, "--no-dashboard"))
        with distributed.Client(scheduler) as client:
            client.wait_for_workers(count * len(started), SECONDS)
        time.sleep(1)  # a nanny whose worker ends before it has heard of its start ends too

    yield start
    for process in started:
        process.terminate()
        process.wait(SECONDS)


def die_first(
    raw: Path, folder: Path, params: DegradePairs, photograph: ImageRecord, pairs: list[PairRecord]
) -> list[PairRecord]:
    """Kill the process that comes to the first photograph first."""
    marker = folder.parent / "died"
    if photograph.path.startswith("a") and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return _degrade_image(raw, folder, params, photograph, pairs)


@pytest.mark.parametrize("count", [1, 2])
def test_pairs_are_the_same_from_a_cluster_even_if_a_worker_dies(
    count: int,
    workers: Callable[[int], None],
    tiny_raw: tuple[Path, list[ImageRecord]],
    tiny_mix: DegradePairs,
    tiny_pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers(count)
    raw, records = tiny_raw
    monkeypatch.chdir(tmp_path)  # the workers started elsewhere
    monkeypatch.setattr(write, "_degrade_image", die_first)
    write.degrade_pairs(raw, Path("pairs"), records, tiny_mix.model_copy(update={"workers": 2}))
    assert Path("died").exists()
    found, expected = (
        {path.name: sha256_of(path) for path in folder.iterdir()} for folder in (Path("pairs"), tiny_pairs)
    )
    assert found == expected


def die_once() -> None:
    """Kill the process that comes here first."""
    marker = Path("died")
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def unchanged(frame: Frame, _degradation: str) -> Frame:
    return frame


def unchanged_after_a_death(frame: Frame, _degradation: str) -> Frame:
    die_once()
    return frame


@pytest.mark.parametrize("count", [1, 4])
def test_scores_are_the_same_from_a_cluster_even_if_a_worker_dies(
    count: int, workers: Callable[[int], None], tiny_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers(count)
    records, networks = read_pairs(tiny_pairs), stored_networks(tmp_path)
    alone: dict[str, Contender] = {"degraded": unchanged, **networks}
    expected = score_contenders(tiny_pairs, records, alone), clean_psnr_db(tiny_pairs, records, alone)
    monkeypatch.chdir(tmp_path)
    lossy: dict[str, Contender] = {"degraded": unchanged_after_a_death, **networks}
    with worker_pool(2, threads=True) as pool:
        scores = score_contenders(tiny_pairs, records, lossy, pool)
        assert Path("died").exists()
        assert (scores, clean_psnr_db(tiny_pairs, records, lossy, pool)) == expected


def read_small(path: Path) -> Clip:
    return read_clip(path, frames=2, height=64)


def read_after_a_death(path: Path) -> Clip:
    die_once()
    return read_small(path)


def test_calls_are_the_same_from_a_cluster_even_if_a_worker_dies(
    workers: Callable[[int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers(2)
    files = [tmp_path / "photo.png"]
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 80, 3), dtype=np.uint8)).save(files[0])
    looks: dict[Look, Callable[[], Restore]] = {
        "natural": partial(Sharpener, "fast", "onnxruntime", 1, video=True),
        "crisp": partial(Sharpener, "fast", "onnxruntime", 1, look="crisp", video=True),
    }
    monkeypatch.chdir(tmp_path)
    scores, strips = measure_clips(files, read_after_a_death, ["h264"], looks)
    assert Path("died").exists()
    monkeypatch.delenv("CLEARCALL_SCHEDULER")
    expected, (strip,) = measure_clips(files, read_small, ["h264"], looks)
    assert scores == expected
    assert [name for name, frames in strips[0].rows.items() if not np.array_equal(frames, strip.rows[name])] == []


def double(number: int) -> int:
    if number == 3:
        raise UserError("three is too many")
    return 2 * number


def test_a_cluster_is_used_as_a_pool_is(workers: Callable[[int], None]) -> None:
    workers(1)
    with worker_pool(2) as pool:
        assert [future.result() for future in as_completed([pool.submit(double, 2)])] == [4]
        assert pool.submit(torch.get_num_threads).result() == 1
    with pytest.raises(UserError, match="three is too many"), worker_pool(2) as pool:
        list(pool.map(double, range(9)))


def test_a_task_that_ends_each_worker_is_given_up(workers: Callable[[int], None]) -> None:
    workers(1)
    with pytest.raises(UserError, match="one task ended several Dask workers"), worker_pool(1) as pool:
        pool.submit(os._exit, 1).result()


def test_a_worker_with_several_threads_is_refused(workers: Callable[[int, int], None]) -> None:
    workers(1, 2)
    with pytest.raises(UserError, match="has 2 threads: start workers with `--nthreads 1`"), worker_pool(1):
        pass


def test_a_scheduler_that_is_not_there_and_one_without_workers(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearcall.core.cluster._JOIN_SECONDS", 1)
    silent = socket.create_server(("127.0.0.1", 0))
    at = "tcp://{}:{}".format(*silent.getsockname())
    for address, said in {
        at: rf"no Dask scheduler at CLEARCALL_SCHEDULER={at} \(no answer\)",
        "tls://127.0.0.1:9": "no Dask scheduler at CLEARCALL_SCHEDULER=tls.* TLS",
        "tcp://127.0.0.1:9": "no Dask scheduler at CLEARCALL_SCHEDULER=tcp://127.0.0.1:9 .*start one with",
        "cluster": "no Dask scheduler at CLEARCALL_SCHEDULER=cluster",
        "gopher://127.0.0.1:9": "no Dask scheduler at CLEARCALL_SCHEDULER=gopher",
        scheduler: "has no workers: start `dask worker tcp://127",
    }.items():
        monkeypatch.setenv("CLEARCALL_SCHEDULER", address)
        with pytest.raises(UserError, match=said), worker_pool(1):
            pass
    silent.close()
