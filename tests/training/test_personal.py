"""Personal models: the weights by which a shipped network was adapted, and nothing else."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clearcall.core.errors import UserError
from clearcall.core.files import SHIPPED
from clearcall.imaging.frame import Frame
from clearcall.models.export import expert_weights
from clearcall.models.inference import restore
from clearcall.models.students.routed import Routed
from clearcall.runtime.graph import load_graph, with_weights, write_personal
from clearcall.runtime.sharpener import Sharpener
from clearcall.training.adapt import load_student

EXPERTS = ("heads_smaller_fine", "heads_smaller_coarse")


@pytest.fixture(scope="module")
def adapted() -> Routed:
    """The student `fast` with two experts changed a little."""
    student = load_student("fast")
    torch.manual_seed(1)
    with torch.no_grad():
        for name in EXPERTS:
            for tensor in student.experts[student.names.index(name) - 1].parameters():
                tensor.add_(0.02 * torch.randn_like(tensor))
    return student


@pytest.mark.parametrize("model", ["fast", "quality"])
def test_a_personal_model_is_small_and_is_the_adapted_network(
    model: str, adapted: Routed, photos: dict[str, Frame], tmp_path: Path
) -> None:
    student = adapted if model == "fast" else load_student(model)
    path, frame = tmp_path / "me.npz", photos["astronaut"][:128, 150:300]
    write_personal(path, model, expert_weights(student, EXPERTS))
    assert path.stat().st_size < (40_000 if model == "fast" else 100_000)
    whole = load_graph(SHIPPED / f"{model}.onnx")
    changed = load_graph(path)
    assert changed.choices == whole.choices and changed.name == "me.npz"
    assert len(changed.onnx) == len(whole.onnx)
    assert (changed.onnx == whole.onnx) == (model == "quality")  # whose weights are the shipped ones
    if model == "fast":
        for expert, differs in ((EXPERTS[0], True), ("bicubic_x2.0", False)):
            sharp = Sharpener(path, "onnxruntime", 1, expert=expert)(frame)
            general = Sharpener(model, "onnxruntime", 1, expert=expert)(frame)
            assert (sharp != general).any() == differs
            number = student.names.index(expert)
            alone = restore(_Expert(student, number), frame)
            assert np.abs(sharp.astype(int) - alone).max() <= 1


def save(path: Path, **arrays: Any) -> None:
    np.savez(path, **arrays)


class _Expert(torch.nn.Module):
    def __init__(self, student: Routed, number: int) -> None:
        super().__init__()
        self.student, self.number = student, number

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.student.restore_by(self.number, image)


def test_what_is_no_personal_model_is_one_message(tmp_path: Path) -> None:
    path, weights = tmp_path / "me.npz", expert_weights(load_student("fast"), EXPERTS[:1])
    name = next(iter(weights))

    def refused(said: str) -> None:
        with pytest.raises(UserError, match=f"me.npz is no personal model: .*{said}") as told:
            Sharpener(path)
        assert "\n" not in str(told.value)

    path.write_bytes(b"no archive")
    refused("not a zip file")
    save(path, **weights)
    refused("model")
    told = {"model": np.array("fast"), "sha256": np.array("0" * 64)}
    save(path, **told, **weights)
    refused("adapted from another fast than this version of clearcall has")
    save(path, **(told | {"model": np.array("../fast")}), **weights)
    refused("adapted from another")
    write_personal(path, "fast", {**weights, "expert1/core/other": weights[name]})
    refused("it has no constants expert1/core/other")
    write_personal(path, "fast", {**weights, name: np.zeros(10**6, np.float32)})
    refused(f"{name} has another size")
    write_personal(path, "fast", {**weights, name: weights[name].astype(np.float64)})
    refused("not float32")
    save(path, **told, object=np.array([{}]))
    refused("")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.npy", bytes(2**25))
    assert path.stat().st_size < 10**5
    refused("more than 16 MiB")
    content = (SHIPPED / "fast.onnx").read_bytes()
    assert with_weights(content, {}) == content


def test_a_corrupt_array_is_one_message(tmp_path: Path) -> None:
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f4", "fortran_order": False, "shape": (2**50,)})
    path = tmp_path / "me.npz"
    for entry in (b"no array", huge.getvalue(), b"\x93NUMPY\1\0\x08\0{'d': ((", b""):
        write_personal(path, "fast", {})
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("other.npy", entry)
        with pytest.raises(UserError, match=r"me\.npz is no personal model"):
            load_graph(path)
