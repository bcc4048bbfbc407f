"""The Dockerfile and the dev container, which is made from a stage of it."""

import json
import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]
DOCKERFILE = (PROJECT / "Dockerfile").read_text(encoding="utf-8")


def test_the_dev_container_names_what_there_is() -> None:
    folder = PROJECT / ".devcontainer"
    container = json.loads((folder / "devcontainer.json").read_text(encoding="utf-8"))
    assert (folder / container["build"]["dockerfile"]).samefile(PROJECT / "Dockerfile")
    assert (folder / container["build"]["context"]).samefile(PROJECT)
    assert container["build"]["target"] in re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)
    make, target = container["postCreateCommand"].split()
    assert make == "make"
    assert re.search(rf"^{target}:", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_dockerfile_copies_what_there_is() -> None:
    copied = [name for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()]
    assert {"requirements.lock", "src", "."} <= set(copied)
    assert [name for name in copied if name != "." and not any(PROJECT.glob(name))] == []
