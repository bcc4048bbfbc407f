"""Deinterlace frames by FFmpeg's filter bwdif."""

from collections.abc import Iterator
from fractions import Fraction
from typing import cast

import av
from av.video.frame import VideoFrame

# One frame for each of the input, and frames that are not interlaced stay as they are.
_OPTIONS = "mode=send_frame:parity=auto:deint=interlaced"


_Form = tuple[int, int, str]  # width, height, pixel format


class Deinterlacer:
    """Makes whole frames of interlaced ones; a result is one frame late, since the filter looks at the next frame."""

    def __init__(self, time_base: Fraction) -> None:
        self._time_base = time_base
        self._graph: av.filter.Graph | None = None
        self._form: _Form | None = None

    def __call__(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """Yield what is done once this frame has come; one of another size or format ends those before it."""
        form = frame.width, frame.height, frame.format.name
        if form != self._form:
            yield from self.rest()
            self._graph, self._form = self._made(frame), form
        graph = cast(av.filter.Graph, self._graph)
        graph.vpush(frame)
        yield from self._pulled(graph)

    def rest(self) -> Iterator[VideoFrame]:
        """Yield what is left when no more frames come."""
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._pulled(self._graph)
            self._graph = self._form = None

    def _made(self, frame: VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        source = graph.add_buffer(None, frame.width, frame.height, frame.format, time_base=self._time_base)
        graph.link_nodes(source, graph.add("bwdif", _OPTIONS), graph.add("buffersink")).configure()
        return graph

    def _pulled(self, graph: av.filter.Graph) -> Iterator[VideoFrame]:
        while True:
            try:
                frame = graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            if frame.pts is not None and frame.time_base:  # the filter counts in halves of the unit
                frame.pts = round(frame.pts * frame.time_base / self._time_base)
            frame.time_base = self._time_base
            yield frame
