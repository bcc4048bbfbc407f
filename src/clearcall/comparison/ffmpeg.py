"""FFmpeg's own sharpening filters, through PyAV's filter graph: no ffmpeg program is needed."""

from typing import Literal

import av
import numpy as np
from av.filter import Graph, filters_available

from clearcall.data.codecs import CONVERSION
from clearcall.metrics import Frame

FilterName = Literal["unsharp", "cas"]
# Contenders by name.
FFMPEG_FILTERS: dict[str, FilterName] = {"ffmpeg_unsharp": "unsharp", "ffmpeg_cas": "cas"}
# The format with all chroma in which each filter works: `unsharp` takes no RGB.
_PIXEL_FORMATS: dict[FilterName, str] = {"unsharp": "yuv444p", "cas": "gbrp"}


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
