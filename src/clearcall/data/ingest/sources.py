"""Sources of photographs and pairs, and their splits; nothing is decoded here."""

import hashlib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from clearcall.core.console import warn
from clearcall.core.errors import UserError
from clearcall.data.manifest import Split
from clearcall.imaging.decode import KINDS, SUFFIXES
from clearcall.media.video.read import VIDEO_SUFFIXES
from clearcall.params import DownloadData

SPLIT_FOLDERS: dict[str, Split] = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
BLUR, SHARP = "blur", "sharp"  # folders of the two images of each pair
GOPRO_PAGE = "https://seungjunnah.github.io/Datasets/gopro"
SHOWN = 20  # names in one message
_DOCUMENTS = {".txt", ".md", ".csv"}

_CC0 = "CC0 1.0"
_PUBLIC = "public domain"
# skimage.data's docstrings and sklearn/datasets/images/README.txt say the licences.
_BUNDLED: tuple[tuple[Split, str, str, str], ...] = (
    ("train", "skimage/data/motorcycle_left.png", "motorcycle", "Middlebury Stereo 2014, no licence stated"),
    ("train", "skimage/data/motorcycle_right.png", "motorcycle", "Middlebury Stereo 2014, no licence stated"),
    ("train", "skimage/data/hubble_deep_field.jpg", "hubble_deep_field", f"{_PUBLIC} (NASA)"),
    ("train", "skimage/data/ihc.png", "ihc", "no known copyright restrictions (CMMI)"),
    ("train", "skimage/data/retina.jpg", "retina", f"{_CC0} (Mikael Häggström)"),
    ("train", "sklearn/datasets/images/china.jpg", "china", "CC BY 2.0 (danielbuechele, Flickr 6061409035)"),
    ("validation", "skimage/data/rocket.jpg", "rocket", f"{_PUBLIC} (SpaceX)"),
    ("validation", "sklearn/datasets/images/flower.jpg", "flower", "CC BY 2.0 (vultilion, Flickr 6056698931)"),
    ("test", "skimage/data/astronaut.png", "astronaut", f"{_PUBLIC} (NASA)"),
    ("test", "skimage/data/chelsea.png", "chelsea", f"{_CC0} (Stefan van der Walt)"),
    ("test", "skimage/data/coffee.png", "coffee", f"{_CC0} (Rachel Michetti)"),
)


@dataclass(frozen=True)
class Original:
    """One photograph or video of a source: its file, and its name there with forward slashes.

    `degraded` is the file of its blurred partner where the source brings pairs.
    """

    path: Path
    name: str
    group: str
    split: Split
    licence: str
    degraded: Path | None = None


def bundled_originals() -> list[Original]:
    """Return the colour photographs that scikit-image and scikit-learn bring."""
    originals = []
    for split, name, group, licence in _BUNDLED:
        package, _, inside = name.partition("/")
        found = importlib.util.find_spec(package)
        path = Path(found.origin).parent / inside if found and found.origin else None
        if path is None or not path.is_file():
            raise UserError(f"the bundled photograph {name} is not installed: run `pip install 'clearcall[pipeline]'`")
        originals.append(Original(path, name, group, split, licence))
    return originals


def folder_originals(folder: Path, params: DownloadData) -> list[Original]:
    """Return the images and videos of a tree, sorted by name.

    Top-level folders train, validation (or val) and test are the split; test and validation are drawn by group from
    train where the folder has none. Raises UserError if the folder cannot fill three splits, or if a group of
    `group_by: folder` lies in two split folders.
    """
    names = image_names(folder, videos=True)
    splits = _splits(folder, dict.fromkeys(names, params.group_by), params)
    return [Original(folder / name, _printable(name), *splits[name], params.licence) for name in names]


def paired_originals(folder: Path, params: DownloadData) -> list[Original]:
    """Return the sharp images of a folder with their blurred partners, by name.

    Those in a folder `sharp` are the photographs, those of the same name in the folder `blur` beside it their partners:
    `train/scene/blur/1.png` and `train/scene/sharp/1.png`, say. Images elsewhere are left out with a warning. Splits as
    in `folder_originals`, but images of one scene always stay together. Raises UserError naming images that have no
    partner.
    """
    sides: dict[str, dict[str, str]] = {BLUR: {}, SHARP: {}}
    others = []
    for name in image_names(folder):
        parts = PurePosixPath(name).parts
        places = [index for index, part in enumerate(parts[:-1]) if part.lower() in sides]
        if len(places) == 1:
            inner = "/".join(parts[: places[0]] + parts[places[0] + 1 :])
            sides[parts[places[0]].lower()][inner] = name
        else:
            others.append(name)
    sharp, blur = sides[SHARP], sides[BLUR]
    if not sharp:
        raise UserError(
            f"{folder} holds no pairs: it must have folders {BLUR} and {SHARP} with images of the same names, "
            f"such as train/scene/{BLUR}/1.png and train/scene/{SHARP}/1.png"
        )
    if alone := sorted(
        sides[side][name]
        for side, other in ((SHARP, blur), (BLUR, sharp))
        for name in sides[side].keys() - other.keys()
    ):
        raise UserError(
            f"{len(alone)} images in {folder} have no partner of the same name in {BLUR} or {SHARP}: add or "
            f"remove {_shown(alone)}"
        )
    if others:
        warn(f"{len(others)} images in {folder} are in no folder {BLUR} or {SHARP} and were left out: {_shown(others)}")
    names = sorted(sharp)
    splits = _splits(folder, {name: "folder" if _has_scene(name) else params.group_by for name in names}, params)
    return [
        Original(
            folder / sharp[name],
            _printable(sharp[name]),
            *splits[name],
            params.licence,
            folder / blur[name],
        )
        for name in names
    ]


def gopro_folder(folder: Path) -> Path:
    """Return the folder that holds `train` and `test`: the given one, or one in it."""
    for candidate in (folder, *sorted(folder.glob("*/"))):
        if (candidate / "train").is_dir():
            return candidate
    raise UserError(
        f"the GoPro pairs are not in {folder}: get GOPRO_Large.zip as described at {GOPRO_PAGE} and unpack it, then "
        "set download_data.folder to the folder with train and test; or set download_data.archive to the zip file's "
        "{url: ..., sha256: ..., size: ...}"
    )


def unsplash_folder(folder: Path) -> Path | None:
    """Return the folder `high res` of the Unsplash set, at or below the given one; else None."""
    return next((path for path in (folder, *sorted(folder.rglob("*/"))) if path.name == "high res"), None)


def _has_scene(name: str) -> bool:
    folders = PurePosixPath(name).parts[:-1]
    return len(folders) > (1 if folders and folders[0].lower() in SPLIT_FOLDERS else 0)


def _splits(
    folder: Path, group_by: Mapping[str, Literal["file", "folder"]], params: DownloadData
) -> dict[str, tuple[str, Split]]:
    """Return the group and the split of each image; `group_by` says how each is grouped."""
    tops = {name: SPLIT_FOLDERS.get(name.partition("/")[0].lower()) if "/" in name else None for name in group_by}
    outside = [name for name, split in tops.items() if split is None]
    if outside and len(outside) < len(tops):
        raise UserError(
            f"{folder} has folders named after splits, but {len(outside)} images lie outside them, such as "
            f"{outside[0]}: move each into train, validation or test"
        )
    groups, given = {}, dict[str, Split]()
    for name, top in tops.items():
        split = top or "train"
        groups[name] = group = _group(name, group_by[name], split if top else None)
        if given.setdefault(group, split) != split:
            raise UserError(
                f"the folder {group} lies in both {given[group]} and {split} of {folder}: keep it in one of them"
                + (
                    ", rename one, or set download_data.group_by: file"
                    if params.source == "folder"
                    else " or rename one"
                )
            )
    try:
        splits = draw_splits(given, params.test_fraction, params.validation_fraction, params.seed)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    return {name: (group, splits[group]) for name, group in groups.items()}


def draw_splits(
    given: Mapping[str, Split], test_fraction: float, validation_fraction: float, seed: int
) -> dict[str, Split]:
    """Return the split of each group; missing test and validation are drawn from train.

    `test_fraction` and then `validation_fraction` are of the groups in train at that moment; each split gets at least
    one. Groups are ranked by a hash of seed and name, so that their order does not matter. Raises UserError if there
    are too few.
    """
    fractions: dict[Split, float] = {"test": test_fraction, "validation": validation_fraction}
    missing = [split for split in fractions if split not in given.values()]
    train = sorted(
        (group for group, split in given.items() if split == "train"),
        key=lambda group: hashlib.sha256(f"{seed}/{group}".encode()).digest(),
    )
    if len(train) < len(missing) + 1:
        raise UserError(
            f"too few photographs: {', '.join(['train', *missing])} must be filled from {len(train)} group(s) of "
            f"train, and need at least {len(missing) + 1}: add photographs, or set group_by: file if each stands alone"
        )
    splits = dict(given)
    for left, split in zip(range(len(missing), 0, -1), missing, strict=True):
        count = min(max(1, round(fractions[split] * len(train))), len(train) - left)
        splits |= dict.fromkeys(train[:count], split)
        train = train[count:]
    return splits


def _group(name: str, group_by: Literal["file", "folder"], split: Split | None) -> str:
    path = PurePosixPath(_printable(name))
    if group_by == "file":
        return str(path.with_suffix(""))
    # The split's folder is no part of the group, or one clip under both train/ and test/ would pass for two.
    inner = path.parent.relative_to(path.parts[0]) if split else path.parent
    return str(inner) if inner.parts else split or "."


def image_names(folder: Path, *, videos: bool = False) -> list[str]:
    """Return the images' relative paths, sorted; warn about files that are no images.

    With `videos`, these are images too. Raises UserError if there is none.
    """
    if not folder.is_dir():
        advice = _advice_in_a_copy(folder) or "create it, or correct download_data.folder in params.yaml"
        raise UserError(f"the folder {folder} is missing: {advice}")
    names, others = [], []
    for file in _files(folder, set()):
        if file.suffix.lower() in SUFFIXES or (videos and file.suffix.lower() in VIDEO_SUFFIXES):
            names.append(file.relative_to(folder).as_posix())
        elif not file.stem.upper().startswith("README") and file.suffix.lower() not in _DOCUMENTS:
            others.append(_printable(file.relative_to(folder).as_posix()))
    kinds = f"{KINDS}, nor as a video" if videos else KINDS
    if others:
        warn(f"{len(others)} files in {folder} are not named as {kinds}, and were left out: {_shown(sorted(others))}")
    if not names:
        wanted = "image or video" if videos else "image"
        advice = _advice_in_a_copy(folder) or "put photographs there or choose another folder or source"
        raise UserError(f"{folder} holds no {wanted} ({KINDS}): {advice}")
    return sorted(names)


def _advice_in_a_copy(folder: Path) -> str | None:
    """Return what to do about a relative folder in DVC's copy of a project, None elsewhere."""
    here = Path.cwd()
    dvc = next((above for above in here.parents if above.name == ".dvc"), None)
    if folder.is_absolute() or dvc is None or not here.is_relative_to(dvc / "tmp" / "exps"):
        return None
    project = (dvc.parent / folder).resolve()
    return f"--queue and --temp run in a copy without what git ignores; set download_data.folder={project}"


def _shown(names: list[str]) -> str:
    return ", ".join(map(_printable, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")


def _files(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Yield the files below a folder that are not hidden; each linked folder once."""
    if (real := folder.resolve()) in seen:
        return
    seen.add(real)
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _files(entry, seen)
        else:
            yield entry


def _printable(name: str) -> str:
    """Return a file's name with bytes that are not UTF-8 as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
