"""Degrade every photograph in all the ways of the mix and write the pairs to memory-mapped shards."""

from collections import Counter

from clearcall.core import errors
from clearcall.core.files import write_json
from clearcall.data.degrade.write import degrade_pairs
from clearcall.data.manifest import SPLITS, Split, read_manifest
from clearcall.data.pairs import iterate_pairs
from clearcall.params import load_params


def main() -> None:
    """Read the manifest, write the pairs and a summary."""
    params = load_params()
    records = read_manifest(params.paths.raw)
    degrade_pairs(params.paths.raw, params.paths.pairs, records, params.degrade_pairs)
    pairs, pixels = Counter[Split](), 0
    for pair in iterate_pairs(params.paths.pairs):
        pairs[pair.split] += 1
        pixels += pair.width * pair.height
    write_json(
        params.paths.reports / "degrade_pairs.json",
        {
            "pairs": {split: pairs[split] for split in SPLITS},
            "megapixels": round(pixels / 1e6, 2),
            "degradations": list(params.degrade_pairs.mix),
        },
    )


if __name__ == "__main__":
    errors.run(main)
