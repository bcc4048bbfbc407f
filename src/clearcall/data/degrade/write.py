"""Apply every degradation of the mix to every photograph, and write the pairs."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import chain, product, starmap
from pathlib import Path

import numpy as np

from clearcall.core.console import track
from clearcall.core.errors import UserError
from clearcall.core.files import atomic_folder, write_csv
from clearcall.core.machine import available_cores
from clearcall.core.processes import map_in_order, worker_pool
from clearcall.data.manifest import CLIP_FRAMES, ImageRecord, Split
from clearcall.data.pairs import INDEX, PairRecord
from clearcall.data.synthetic import MAX_BEND, MAX_PAN, MAX_ZOOM, SOFTNESS, bent, enlarged, pan_and_zoom, text_page
from clearcall.imaging.decode import image_errors, open_image
from clearcall.imaging.frame import Frame
from clearcall.imaging.metrics import psnr_db, ssim
from clearcall.imaging.sizes import resized
from clearcall.params import DegradePairs

SHARD_BYTES = 256 * 2**20
_ENLARGED, _BENT = 0.5, 0.3  # shares of soft images


def pair_seed(seed: int, pair: PairRecord) -> int:
    """Return the seed of one pair: independent of order and number of workers."""
    name = f"{seed}/{pair.image}/{pair.scale:g}/{pair.degradation}/{pair.variant}"
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "big")


def degrade_pairs(raw: Path, pairs: Path, records: Sequence[ImageRecord], params: DegradePairs) -> None:
    """Apply every degradation of the mix to every photograph; write shards and index to `pairs`.

    The place of each image follows from the manifest, so workers write to their own parts of the shards: the bytes are
    the same for any number of workers. Pairs are planned and listed as work goes on, so memory does not grow with them.
    """
    workers = params.workers or available_cores()
    alone = [record.path for record in records if not record.degraded]
    if alone and any(map(params.takes_given, params.mix)):
        raise UserError(
            f"{alone[0]} has no blurred partner, which the mix asks for: choose another degrade_pairs.mix, or a "
            "download_data.source that brings pairs"
        )
    total = sum(len(_scales(record, params)) for record in records)
    with atomic_folder(pairs) as folder, ExitStack() as stack:
        work, plan = partial(_degrade_image, raw, folder, params), _plan(records, params, folder)
        done: Iterator[list[PairRecord]] = starmap(work, plan)
        if workers > 1:
            pool = stack.enter_context(worker_pool(min(workers, total), None))
            done = map_in_order(pool, work, plan)
        write_csv(folder / INDEX, chain.from_iterable(track(done, total, "degrading photographs")))


def _scales(record: ImageRecord, params: DegradePairs) -> Sequence[float]:
    return (1.0,) if record.split == "test" else params.scales


def _plan(
    records: Iterable[ImageRecord], params: DegradePairs, folder: Path
) -> Iterator[tuple[ImageRecord, list[PairRecord]]]:
    """Yield each photograph with its pairs at each scale and their places, in shards that are made on the way."""
    shard_sizes: dict[str, int] = {}
    numbers = Counter[Split]()

    def place(split: Split, size: int) -> tuple[str, int]:
        shard = f"{split}-{numbers[split]:03d}.bin"
        if shard in shard_sizes and shard_sizes[shard] + size > SHARD_BYTES:
            numbers[split] += 1
            shard = f"{split}-{numbers[split]:03d}.bin"
        if shard not in shard_sizes:
            (folder / shard).touch()
        offset = shard_sizes.get(shard, 0)
        shard_sizes[shard] = offset + size
        return shard, offset

    for record in records:
        for scale in _scales(record, params):
            width, height = round(record.width * scale), round(record.height * scale)
            size = width * height * 3
            sharp_shard, sharp_offset = place(record.split, size)
            pairs = []
            for degradation, variant in product(params.mix, range(params.variants)):
                degraded_shard, degraded_offset = place(record.split, size)
                pairs.append(
                    PairRecord(
                        image=record.path,
                        image_sha256=record.sha256,
                        group=record.group,
                        split=record.split,
                        scale=scale,
                        degradation=degradation,
                        variant=variant,
                        height=height,
                        width=width,
                        degraded_height=height,
                        degraded_width=width,
                        sharp_shard=sharp_shard,
                        sharp_offset=sharp_offset,
                        degraded_shard=degraded_shard,
                        degraded_offset=degraded_offset,
                        psnr_db=0.0,
                        ssim=0.0,
                        enlarged=1.0,
                    )
                )
            yield record, pairs


def _degrade_image(
    raw: Path, folder: Path, params: DegradePairs, photograph: ImageRecord, pairs: list[PairRecord]
) -> list[PairRecord]:
    """Write the sharp and all degraded images of a photograph at one scale; return its pairs with quality."""
    # albumentations takes three seconds to import: only a process that degrades pays for it.
    from clearcall.data.degrade.degradations import build_degradation  # noqa: PLC0415

    first = pairs[0]
    (sharp,) = _read(raw / photograph.path, photograph, first)
    given = sharp
    if any(map(params.takes_given, params.mix)):
        (given,) = _read(raw / photograph.degraded, photograph, first)
    before, factor = list[Frame](), 1.0
    if photograph.before and params.has_codec():
        before = _read(raw / photograph.before, photograph, first, stacked=True)
    elif given is sharp:
        (*before, sharp), factor = _softened(_or_page(sharp, params, first), params, first)
        given = sharp
    _write(folder / first.sharp_shard, first.sharp_offset, sharp)
    results = []
    for pair in pairs:
        steps = params.degradations[pair.degradation]
        degrade = build_degradation(steps, pair.width, pair.height, pair_seed(params.seed, pair), before)
        degraded = degrade(given if params.takes_given(pair.degradation) else sharp)
        _write(folder / pair.degraded_shard, pair.degraded_offset, degraded)
        results.append(
            replace(
                pair,
                degraded_height=degraded.shape[0],
                degraded_width=degraded.shape[1],
                psnr_db=psnr_db(sharp, degraded),
                ssim=ssim(sharp, degraded),
                enlarged=factor,
            )
        )
    return results


def _or_page(sharp: Frame, params: DegradePairs, pair: PairRecord) -> Frame:
    """Return a photograph, or in a share `page_fraction` of cases a page of text of its size."""
    draw = np.random.default_rng(pair_seed(params.seed, replace(pair, degradation="page", variant=0)))
    if pair.split == "test" or draw.random() >= params.page_fraction:
        return sharp
    return text_page(pair.height, pair.width, draw)


def _softened(sharp: Frame, params: DegradePairs, pair: PairRecord) -> tuple[list[Frame], float]:
    """Return a photograph, or in a share `soft_fraction` of cases a clip of it, and its upscaling factor.

    Such a clip pans by parts of a pixel, some also bend as faces do, and half are of an upscaled photograph, as soft as
    many cameras record. Trained on crisp photographs alone, a network over-sharpens softer ones; trained on clips that
    end with a crisp frame, it sharpens every last frame.
    """
    draw = np.random.default_rng(pair_seed(params.seed, replace(pair, degradation="soft", variant=0)))
    if pair.split == "test" or draw.random() >= params.soft_fraction:
        return [sharp], 1.0
    x, y = draw.uniform(-MAX_PAN, MAX_PAN, 2)
    zoom, factor = draw.uniform(1 / MAX_ZOOM, MAX_ZOOM), 1.0
    if draw.random() < _ENLARGED:
        factor = float(draw.uniform(*SOFTNESS))
        sharp = enlarged(sharp, factor)
    clip = pan_and_zoom(sharp, CLIP_FRAMES + 1, (x, y), zoom)[:-1]
    if draw.random() < _BENT:
        clip = bent(clip, draw.uniform(0, MAX_BEND), draw)
    return clip, factor


def _read(path: Path, photograph: ImageRecord, pair: PairRecord, *, stacked: bool = False) -> list[Frame]:
    """Return the image of a file, or those that are stacked in it, at the pair's scale.

    Raises UserError if the size is not that of the manifest.
    """
    height, width = photograph.height, photograph.width
    with image_errors(path), open_image(path, CLIP_FRAMES * width * height) as image:
        rest = image.height % height if stacked else image.height - height
        if image.mode != "RGB" or image.width != width or rest:
            raise UserError(
                f"{path} is {image.height}x{image.width} {image.mode}, not the {height}x{width} RGB of the manifest: "
                "run `dvc repro -f -s download_data`"
            )
        stack = np.asarray(image)
    size = pair.width, pair.height
    return [resized(frame, size, "lanczos") for frame in stack.reshape(-1, height, width, 3)]


def _write(shard: Path, offset: int, image: Frame) -> None:
    with shard.open("r+b") as file:
        file.seek(offset)
        file.write(np.ascontiguousarray(image).data)
