"""Degrade every photograph in all the ways of the mix and write the pairs to memory-mapped shards."""

from clearcall.core import errors
from clearcall.core.files import write_json
from clearcall.data.degrade.write import degrade_pairs
from clearcall.data.manifest import SPLITS, read_manifest
from clearcall.params import load_params


def main() -> None:
    """Read the manifest, write the pairs and a summary."""
    params = load_params()
    records = read_manifest(params.paths.raw)
    pairs = degrade_pairs(params.paths.raw, params.paths.pairs, records, params.degrade_pairs)
    write_json(
        params.paths.reports / "degrade_pairs.json",
        {
            "pairs": {split: sum(pair.split == split for pair in pairs) for split in SPLITS},
            "megapixels": round(sum(pair.width * pair.height for pair in pairs) / 1e6, 2),
            "degradations": list(params.degrade_pairs.mix),
        },
    )


if __name__ == "__main__":
    errors.run(main)
