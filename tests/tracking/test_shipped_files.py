"""The files of the shipped networks: complete, small, described, and of one network each."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from clearcall import Sharpener
from clearcall.core.files import SHIPPED, read_json, sha256_of
from clearcall.params import Params
from clearcall.runtime.sharpener import shipped_models

Frame = npt.NDArray[np.uint8]


def test_there_are_three_and_all_are_for_everything() -> None:
    assert shipped_models() == ["best", "fast", "quality"]


@pytest.mark.parametrize("name", ["fast", "quality", "best"])
class TestEveryShippedNetwork:
    def test_is_the_file_that_its_card_tells_of(self, name: str) -> None:
        facts = read_json(SHIPPED / f"{name}.json")
        for kind in ("onnx", "safetensors"):
            path = SHIPPED / f"{name}.{kind}"
            assert sha256_of(path) == facts[f"{kind}_sha256"]
            assert path.stat().st_size <= 2_500_000
        card = (SHIPPED / f"{name}.md").read_text()
        assert f"{facts['clean_psnr_db']:.1f} dB" in card
        assert f"{facts['parameters']:,} parameters" in card
        assert "CC BY-SA 4.0" in card

    def test_weights_and_graph_are_one_network(self, name: str, photos: dict[str, Frame]) -> None:
        from safetensors.torch import load_file

        from clearcall.models.build import build_model
        from clearcall.models.inference import restore

        model = build_model("students", **read_json(SHIPPED / f"{name}.json")["model"])
        model.load_state_dict(load_file(SHIPPED / f"{name}.safetensors"))
        image = photos["coffee"][:101, :143]
        difference = Sharpener(name, "onnxruntime")(image).astype(np.int16) - restore(model.eval(), image)
        assert np.abs(difference).max() <= 1


def test_the_teacher_is_the_file_that_its_card_tells_of(committed: Params) -> None:
    facts, path = read_json(SHIPPED / "teacher.json"), SHIPPED / "teacher.safetensors"
    assert sha256_of(path) == facts["safetensors_sha256"]
    assert path.stat().st_size <= 4_000_000
    assert not (SHIPPED / "teacher.onnx").exists()  # `auto` would choose it
    assert f"{facts['parameters']:,} parameters" in (SHIPPED / "teacher.md").read_text()
    assert committed.train_teacher.model.model_dump() == facts["model"]


def test_the_package_takes_them_along(project: Path) -> None:
    import tomllib

    data = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["clearcall"]
    assert {"runtime/shipped/*", "temporal/weights.*"} <= {*data}
