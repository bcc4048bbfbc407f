"""What several test files share: the committed params, real photographs, and a small folder of pairs."""

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from PIL import Image

from clearcall.core.files import sha256_of
from clearcall.data.manifest import ImageRecord, Split, write_manifest
from clearcall.params import DegradePairs, Params, load_params
from clearcall.runtime.engines import openvino_precisions
from clearcall.runtime.graph import Graph
from clearcall.runtime.sharpener import shipped_models
from clearcall.runtime.trial import Verdict, try_out

if TYPE_CHECKING:  # torch takes a second to import, which many files do without
    from tests.miniature import Miniature
    from torch import nn

    from clearcall.models.build import Kind

# Tests train tiny networks: a second thread of torch only waits, and on a busy machine it waits for long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A loaded machine is slow, not wrong.
settings.register_profile("clearcall", deadline=None)
settings.load_profile("clearcall")

Frame = npt.NDArray[np.uint8]
TINY_SIZES: dict[str, tuple[Split, int, int]] = {  # name: split, height, width
    "a.png": ("train", 48, 64),
    "b.png": ("train", 61, 40),
    "c.png": ("validation", 44, 52),
    "d.png": ("test", 33, 47),
}


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of the tests' own; of networks, the shipped ones alone are tried: a trial takes seconds."""

    def verdict(graph: Graph) -> Verdict:
        if graph.name in {f"{name}.onnx" for name in shipped_models()}:
            return try_out(graph)
        return Verdict("", openvino_precisions()[0] if find_spec("openvino") else None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLEARCALL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("clearcall.runtime.engines.try_out", verdict)
        yield


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's top folder."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def committed(project: Path) -> Params:
    """The committed params.yaml."""
    return load_params(project / "params.yaml")


@pytest.fixture(scope="session")
def photos() -> dict[str, Frame]:
    """The three photographs of the bundled test split."""
    from skimage import data

    names = ("astronaut", "chelsea", "coffee")
    return {name: np.asarray(getattr(data, name)(), np.uint8) for name in names}


@pytest.fixture(scope="session")
def cmyk_profile() -> bytes:
    """A colour profile by which full cyan is the grey of L* 50, full magenta that of 80, and black covers all."""
    identity = struct.pack(">9i", *(65536 * (index % 4 == 0) for index in range(9)))
    lightness = [0 if k else round(2.55 * (100 - 50 * c - 20 * m)) for c, m, _, k in product((0, 1), repeat=4)]
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + 4 * bytes(range(256))
    table += b"".join(bytes([value, 128, 128]) for value in lightness) + 3 * bytes(range(256))
    table += bytes(-len(table) % 4)
    tags = struct.pack(">I4sII", 1, b"A2B0", 144, len(table))
    head = struct.pack(">II", 128 + len(tags) + len(table), 0) + struct.pack(">I", 0x02400000) + b"prtrCMYKLab "
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + tags + table


@pytest.fixture(scope="session")
def tiny_raw(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Frame]) -> tuple[Path, list[ImageRecord]]:
    """A raw folder of four small cuts of real photographs, and its manifest's records."""
    raw = tmp_path_factory.mktemp("tiny") / "raw"
    raw.mkdir()
    records = []
    for index, (name, (split, height, width)) in enumerate(TINY_SIZES.items()):
        top = 80 + 20 * index
        Image.fromarray(photos["astronaut"][top : top + height, 190 : 190 + width]).save(raw / name)
        sha256 = sha256_of(raw / name)
        records.append(ImageRecord(name, sha256, width, height, "RGB", "made", "CC0-1.0", name, split))
    write_manifest(raw, records)
    return raw, records


@pytest.fixture(scope="session")
def tiny_mix(committed: Params) -> DegradePairs:
    """One certain and one random degradation, two sizes of the training photographs, in this process."""
    document = committed.degrade_pairs.model_dump()
    changes = {"mix": ("bicubic_x2.0", "webcam"), "variants": 1, "scales": (1.0, 0.5), "workers": 1, "seed": 1}
    return DegradePairs.model_validate(document | changes)


@pytest.fixture(scope="session")
def tiny_pairs(
    tmp_path_factory: pytest.TempPathFactory, tiny_raw: tuple[Path, list[ImageRecord]], tiny_mix: DegradePairs
) -> Path:
    """The pairs of `tiny_raw` under `tiny_mix`."""
    from clearcall.data.degrade.write import degrade_pairs

    pairs = tmp_path_factory.mktemp("tiny_pairs") / "pairs"
    raw, records = tiny_raw
    degrade_pairs(raw, pairs, records, tiny_mix)
    return pairs


@pytest.fixture
def _sound(tmp_path: Path) -> None:
    """A file sound.wav in the test's folder, which holds no video."""
    import av

    with av.open(str(tmp_path / "sound.wav"), "w") as out:
        stream = out.add_stream("pcm_s16le", 8000)
        assert isinstance(stream, av.AudioStream)
        heard = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), "s16", "stereo")
        heard.sample_rate = 8000
        out.mux(stream.encode(heard))


@pytest.fixture(scope="session")
def colour_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported network that adds 20 levels to Cb, 12 to Cr and nothing to luma."""
    import torch

    from clearcall.models.build import build_model
    from clearcall.models.export import export_onnx
    from clearcall.models.students.luma_strided import LumaStrided

    network = build_model("students", "luma_strided", {"channels": 4, "body_layers": 1, "colour": True})
    assert isinstance(network, LumaStrided)
    network.tail.bias = torch.nn.Parameter(torch.tensor([0, 0, 0, 0, 20, 12]) / 255)
    path = tmp_path_factory.mktemp("colour") / "colour.onnx"
    export_onnx(network.eval(), path, 20)
    return path


@pytest.fixture(scope="session")
def add_video() -> Callable[[Path, list[Frame]], None]:
    """A function that writes frames as an H.264 video of 30 frames a second, of hardly any loss."""
    import av

    def add(path: Path, frames: list[Frame]) -> None:
        with av.open(str(path), "w") as video:
            stream = video.add_stream("libx264", rate=30, options={"qp": "1", "g": "10"})
            stream.height, stream.width = frames[0].shape[:2]
            for frame in frames:
                video.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            video.mux(stream.encode())

    return add


@pytest.fixture(scope="session")
def student_onnx(tmp_path_factory: pytest.TempPathFactory) -> "tuple[nn.Module, Path]":
    """A tiny student whose every layer does something, and its exported graph."""
    from clearcall.models.export import export_onnx

    model, path = (
        _disturbed("students", "luma_strided", {"channels": 4, "body_layers": 1}),
        "student.onnx",
    )
    folder = tmp_path_factory.mktemp("student_onnx")
    export_onnx(model, folder / path, 20)
    return model, folder / path


@pytest.fixture(scope="session")
def teacher_onnx(tmp_path_factory: pytest.TempPathFactory) -> "tuple[nn.Module, Path]":
    """A tiny teacher whose every layer does something, and its exported graph."""
    from clearcall.models.export import export_onnx

    model, path = (
        _disturbed("teachers", "unshuffle_resnet", {"channels": 4, "blocks": 1, "unshuffle": 2}),
        "teacher.onnx",
    )
    folder = tmp_path_factory.mktemp("teacher_onnx")
    export_onnx(model, folder / path, 20)
    return model, folder / path


def _disturbed(kind: "Kind", name: str, arguments: dict[str, int]) -> "nn.Module":
    import torch
    from tests.make.networks import disturb

    from clearcall.models.build import build_model

    torch.manual_seed(0)
    return disturb(build_model(kind, name, arguments), 0.02)


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory, project: Path, photos: dict[str, Frame]) -> "Miniature":
    """A miniature project in which the pipeline has run once, with the MLflow server down from training on."""
    from tests.miniature import STAGES, Miniature

    made = Miniature(tmp_path_factory.mktemp("miniature"), project, photos)
    # Nothing listens at port 9: training must go on, publish alone must fail.
    ran = made.reproduce(expect=255, MLFLOW_TRACKING_URI="http://127.0.0.1:9", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert ran == STAGES
    assert made.reproduce() == ["publish"]
    made.first_weights = made.weights()
    return made


@pytest.fixture
def interrupted() -> "Callable[..., subprocess.CompletedProcess[str]]":
    """Run a program that prints `shown` for each frame, press Ctrl-C after twenty of them, return what came of it.

    Those twenty lines are not in its output. Another signal may be sent instead.
    """

    def run(program: str, *arguments: str, send: int = signal.SIGINT) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", program, *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(20):
                assert process.stdout.readline() == "shown\n"
            process.send_signal(send)
            out, said = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, out, said)

    return run


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file mlflow.db of a project that has logged nothing: its creation takes seconds, a copy none."""
    from tests.make.projects import inside

    from clearcall.tracking import runs

    with inside(tmp_path_factory.mktemp("empty")) as folder:
        runs.experiment_id("clearcall")  # by whose location a copy of the file is told from the original
        return folder / "mlflow.db"
