"""The runtime: 8-bit RGB frames through an exported graph, on onnxruntime's CPU provider."""

from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort

from clearcall.errors import UserError
from clearcall.metrics import Frame

KIND_KEY, STRIDE_KEY = "clearcall.kind", "clearcall.stride"
PROVIDER = "CPUExecutionProvider"
# onnxruntime's errors have no common base of their own.
_ORT_ERRORS = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented")
_LOAD_ERRORS: tuple[type[Exception], ...] = (
    *(getattr(ort.capi.onnxruntime_pybind11_state, name) for name in _ORT_ERRORS),
    RuntimeError,
    KeyError,
    ValueError,
)


class Session:
    """An exported network, ready for frames. One session must not be called from two threads at once."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        options = ort.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = ort.InferenceSession(str(path), options, providers=[PROVIDER])
            metadata = self._session.get_modelmeta().custom_metadata_map
            self._kind, self._stride = metadata[KIND_KEY], int(metadata[STRIDE_KEY])
        except _LOAD_ERRORS as error:
            raise UserError(f"{path} is not a network that clearcall exported: {error}") from None
        self._input = self._session.get_inputs()[0].name

    def __call__(self, frame: Frame) -> Frame:
        """Return the sharpened frame: 8-bit RGB of shape (height, width, 3), of any size, in and out."""
        if frame.dtype != np.uint8 or frame.shape[2:] != (3,) or not frame.size:
            raise UserError(f"a frame must be 8-bit RGB of shape (height, width, 3), not {frame.dtype} {frame.shape}")
        height, width = frame.shape[:2]
        bottom, right = -height % self._stride, -width % self._stride
        padded = frame
        if bottom or right:
            padded = np.asarray(cv2.copyMakeBorder(frame, 0, bottom, 0, right, cv2.BORDER_REPLICATE), dtype=np.uint8)
        if self._kind == "rgb":
            return self._run(padded[None])[0, :height, :width]
        luma = cv2.cvtColor(padded, cv2.COLOR_RGB2GRAY)
        residual = self._run(np.asarray(luma, dtype=np.uint8)[None, None])[0, 0]
        # The same residual for R, G and B leaves chroma as it is; 128 stands for nothing to add.
        restored = cv2.addWeighted(padded, 1, cv2.merge([residual] * 3), 1, -128)
        return np.asarray(restored, dtype=np.uint8)[:height, :width]

    def _run(self, tensor: Frame) -> Frame:
        (answer,) = self._session.run(None, {self._input: tensor})
        return np.asarray(answer, dtype=np.uint8)
