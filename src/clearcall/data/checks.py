"""Checks of the photographs and of the pairs by Great Expectations; this is its only importer."""

import math
import re
import shutil
import struct
from collections.abc import Hashable, Iterable
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from clearcall.console import track
from clearcall.data.manifest import MANIFEST, SPLITS, read_manifest
from clearcall.errors import UserError
from clearcall.files import sha256_of, write_text
from clearcall.params import CheckData, CheckPairs, CountPerSplit, DegradePairs

PAIRS = "pairs.csv"
PAIR_KEY = ["image", "scale", "degradation", "variant"]
PAIR_COLUMNS: dict[Hashable, type] = {
    **dict.fromkeys(("image", "image_sha256", "group", "split", "degradation"), str),
    **dict.fromkeys(("variant", "height", "width", "degraded_height", "degraded_width"), int),
    **dict.fromkeys(("scale", "psnr_db", "ssim"), float),
}
OFFENDERS_SHOWN = 10
DECODE_ERRORS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)  # of Pillow's decoders


@dataclass(frozen=True)
class Rule:
    """One expectation: in plain words, as a class of `great_expectations.expectations`, and its arguments.

    `where` is a column and the value that it must have for a line to be looked at. Great Expectations passes over
    empty cells, so a column that may be empty needs a rule of its own against that.
    """

    words: str
    expectation: str
    arguments: dict[str, Any]
    where: tuple[str, str | bool] | None = None

    def __str__(self) -> str:
        named = [*self.arguments.items(), *([self.where] if self.where else [])]
        return f"{self.words} ({', '.join(f'{name}: {value}' for name, value in named if name != 'ignore_row_if')})"


@dataclass(frozen=True)
class Violation:
    """A rule that does not hold, and what breaks it."""

    rule: Rule
    offenders: list[str]

    def __str__(self) -> str:
        hidden = len(self.offenders) - OFFENDERS_SHOWN
        more = f" ... and {hidden} more" if hidden > 0 else ""
        return f"{self.rule}: {', '.join(self.offenders[:OFFENDERS_SHOWN])}{more}"


def _one_of(words: str, column: str, *values: str | bool | int) -> Rule:
    return Rule(words, "ExpectColumnValuesToBeInSet", {"column": column, "value_set": list(values)})


def _equal(words: str, one: str, other: str) -> Rule:
    # A file that cannot be read has no facts to compare; the rule about reading names it already.
    pair = {"column_A": one, "column_B": other, "ignore_row_if": "either_value_is_missing"}
    return Rule(words, "ExpectColumnPairValuesToBeEqual", pair)


def _between(words: str, column: str, low_high: tuple[float, float], where: tuple[str, bool] | None = None) -> Rule:
    limits = {"column": column, "min_value": low_high[0], "max_value": low_high[1]}
    return Rule(words, "ExpectColumnValuesToBeBetween", limits, where)


def _enough(words: str, least: CountPerSplit) -> list[Rule]:
    return [Rule(words, "ExpectTableRowCountToBeBetween", {"min_value": n}, ("split", split)) for split, n in least]


def image_rules(limits: CheckData) -> list[Rule]:
    """Return what must hold for the photographs; columns as in the manifest, and facts of the file as `file_*`."""
    return [
        _one_of("every file is there and decodes to its end", "readable", True),  # noqa: FBT003  # a value of the column
        _one_of("every file has three channels of 8 bits", "file_mode", "RGB"),
        _between("every file is neither too narrow nor too wide", "file_width", limits.side_range),
        _between("every file is neither too low nor too high", "file_height", limits.side_range),
        _equal("every file has the width that the manifest gives", "file_width", "width"),
        _equal("every file has the height that the manifest gives", "file_height", "height"),
        _equal("every file has the hash that the manifest gives", "file_sha256", "sha256"),
        Rule("no two files are the same", "ExpectColumnValuesToBeUnique", {"column": "file_sha256"}),
        _one_of("no file is in two splits", "splits_of_file", 1),
        _one_of("no group is in two splits", "splits_of_group", 1),
        _one_of("every split is known", "split", *SPLITS),
        *_enough("each split has enough photographs", limits.min_images),
    ]


def pair_rules(limits: CheckPairs, mix: Iterable[str]) -> list[Rule]:
    """Return what must hold for the pairs; `clean` marks those whose degradation leaves the picture as it is."""
    of_mix = {"column": "degradation", "value_set": list(mix)}
    return [
        _equal("both pictures of a pair are equally wide", "degraded_width", "width"),
        _equal("both pictures of a pair are equally high", "degraded_height", "height"),
        Rule("every pair has a PSNR", "ExpectColumnValuesToNotBeNull", {"column": "psnr_db"}),
        Rule("every pair has an SSIM", "ExpectColumnValuesToNotBeNull", {"column": "ssim"}),
        _between("every pair is degraded, but not beyond use", "psnr_db", limits.psnr_db_range, ("clean", False)),
        _between("every pair is degraded, but not beyond use", "ssim", limits.ssim_range, ("clean", False)),
        Rule("no pair is there twice", "ExpectCompoundColumnsToBeUnique", {"column_list": PAIR_KEY}),
        _one_of("no photograph is in two splits", "splits_of_image", 1),
        _one_of("no group is in two splits", "splits_of_group", 1),
        _one_of("every split is known", "split", *SPLITS),
        *(
            Rule("each split has every degradation", "ExpectColumnDistinctValuesToContainSet", of_mix, ("split", split))
            for split in SPLITS
        ),
        *_enough("each split has enough pairs", limits.min_pairs),
    ]


def check_images(raw: Path, limits: CheckData, data_docs: Path) -> dict[str, Any]:
    """Check the manifest against the files and the limits; return the summary, or raise UserError naming each fault.

    Pictures are decoded one at a time.
    """
    path = raw / MANIFEST
    again = "run `dvc repro -f -s download_data` again"
    try:
        records = read_manifest(raw)
    except (ValueError, TypeError) as error:  # a cell that is no number; a line with too few or too many cells
        raise UserError(f"{path} is not a manifest of ours ({error}): {again}") from None
    if not records:
        raise UserError(f"{path} lists no photographs: {again}")
    facts = [
        {**asdict(record), **_file_facts(raw / record.path)}
        for record in track(records, len(records), "checking photographs")
    ]
    frame = pd.DataFrame(facts)
    frame["splits_of_file"] = _splits_of(frame, "file_sha256")
    frame["splits_of_group"] = _splits_of(frame, "group")
    rules = image_rules(limits)
    mend = "Mend or remove these photographs at their source, then run `dvc repro` again."
    _refuse(path, rules, validate("check_data", frame, "path", rules, data_docs), mend, data_docs)
    return _summary(frame, rules, data_docs)


def check_pairs(pairs: Path, limits: CheckPairs, degrade: DegradePairs, data_docs: Path) -> dict[str, Any]:
    """Check the list of pairs against the limits; return the summary, or raise UserError naming each fault.

    The summary's means leave out infinite PSNR (of identical pictures); where nothing else is left the mean is None.
    """
    path = pairs / PAIRS
    frame = _read_pairs(path)
    frame["pair"] = [f"{i} [x{s:g}, {d}, variant {v}]" for i, s, d, v in frame[PAIR_KEY].itertuples(index=False)]
    frame["clean"] = frame["degradation"].isin([name for name, steps in degrade.degradations.items() if not steps])
    frame["splits_of_image"] = _splits_of(frame, "image_sha256")
    frame["splits_of_group"] = _splits_of(frame, "group")
    rules = pair_rules(limits, degrade.mix)
    mend = "Change `degrade_pairs` or the limits in `check_pairs` in params.yaml, then run `dvc repro` again."
    _refuse(path, rules, validate("check_pairs", frame, "pair", rules, data_docs), mend, data_docs)
    return {**_summary(frame, rules, data_docs), "mean": _means(frame)}


def validate(suite: str, frame: pd.DataFrame, key: str, rules: list[Rule], data_docs: Path) -> list[Violation]:
    """Hold a frame against the rules with Great Expectations and write the Data Docs; return what is violated.

    `key` is the column that names an offender. In the Data Docs the suite's earlier results give way to these, those
    of other suites stay.
    """
    # It takes five seconds to import: only a process that checks pays for it.
    import great_expectations as gx  # noqa: PLC0415
    from great_expectations.checkpoint.actions import UpdateDataDocsAction  # noqa: PLC0415
    from great_expectations.data_context.types.base import DataContextConfig  # noqa: PLC0415
    from great_expectations.expectations.row_conditions import Column  # noqa: PLC0415

    _forget(suite, data_docs)
    context = gx.get_context(mode="ephemeral", project_config=DataContextConfig(**_context_config(data_docs)))
    expectations = [
        getattr(gx.expectations, rule.expectation)(
            **rule.arguments,
            description=str(rule),
            row_condition=Column(rule.where[0]) == rule.where[1] if rule.where else None,
        )
        for rule in rules
    ]
    asset = context.data_sources.add_pandas(suite).add_dataframe_asset(suite)
    batch = asset.add_batch_definition_whole_dataframe(suite)
    checked = context.suites.add(gx.ExpectationSuite(name=suite, expectations=expectations))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=suite, data=batch, suite=checked))
    checkpoint = gx.Checkpoint(
        name=suite,
        validation_definitions=[definition],
        actions=[UpdateDataDocsAction(name="data_docs")],
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [key]},
    )
    outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": frame})
    _remove_beacon(data_docs)
    (validated,) = outcome.run_results.values()
    # They come back in another order.
    results = {config.description: result for result in validated.results if (config := result.expectation_config)}
    broken = [rule for rule in rules if not results[str(rule)].success]
    return [Violation(rule, _offenders(results[str(rule)].result, key)) for rule in broken]


def _context_config(data_docs: Path) -> dict[str, Any]:
    """Return a context that lives in memory but for the Data Docs and, beside them, the results that they list.

    Great Expectations drops from the index all that its own stores do not hold; were they in memory, the pages of one
    stage would remove those of the other.
    """

    def folder(name: str) -> dict[str, str]:
        return {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(data_docs.absolute() / name)}

    memory = {"class_name": "InMemoryStoreBackend"}
    return {
        "expectations_store_name": "expectations",
        "validation_results_store_name": "validations",
        "checkpoint_store_name": "checkpoints",
        "stores": {
            "expectations": {"class_name": "ExpectationsStore", "store_backend": folder("store/expectations")},
            "validations": {"class_name": "ValidationResultsStore", "store_backend": folder("store/validations")},
            "checkpoints": {"class_name": "CheckpointStore", "store_backend": memory},
            "validation_definition_store": {"class_name": "ValidationDefinitionStore", "store_backend": memory},
        },
        "data_docs_sites": {
            "site": {"class_name": "SiteBuilder", "store_backend": folder(""), "show_how_to_buttons": False}
        },
        "analytics_enabled": False,
        "progress_bars": {"globally": False},
    }


def _forget(suite: str, data_docs: Path) -> None:
    """Remove a suite's earlier results: only the latest count, and a killed run may have left half-written ones."""
    for top in (data_docs, data_docs / "store"):
        shutil.rmtree(top / "validations" / suite, ignore_errors=True)
        for page in (top / "expectations").glob(f"{suite}.*"):
            page.unlink()


def _remove_beacon(data_docs: Path) -> None:
    """Blank the logo of every page: a browser would fetch it from the vendor together with an id of the context."""
    for page in data_docs.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        write_text(page, re.sub(r'src="https://[^"]*dataContextId=[^"]*"', 'src="data:,"', text))


def _offenders(result: dict[str, Any], key: str) -> list[str]:
    """Return who breaks an expectation, with the numbers that do; for one about a whole split, what it has or lacks."""
    if "unexpected_index_list" in result:
        return [_offender(entry, key) for entry in result["unexpected_index_list"]]
    if "partial_missing_list" in result:
        return [f"{missing} is missing" for missing in sorted(result["partial_missing_list"])]
    return [f"there are {result['observed_value']}"]


def _offender(entry: dict[str, Any], key: str) -> str:
    numbers = [f"{name} {value:g}" for name, value in entry.items() if name not in PAIR_KEY and isinstance(value, Real)]
    return f"{entry[key]} ({', '.join(numbers)})" if numbers else str(entry[key])


def _refuse(path: Path, rules: list[Rule], violations: list[Violation], mend: str, data_docs: Path) -> None:
    if violations:
        lines = "".join(f"\n  {violation}" for violation in violations)
        pages = f"All results as web pages: {_index_page(data_docs)}"
        raise UserError(f"{path} breaks {len(violations)} of {len(rules)} expectations:{lines}\n{mend}\n{pages}")


def _file_facts(path: Path) -> dict[str, Any]:
    """Return what a picture file holds; None stands for what cannot be known because it cannot be read."""
    facts: dict[str, Any] = dict.fromkeys(("file_sha256", "file_mode", "file_width", "file_height"))
    try:
        facts["file_sha256"] = sha256_of(path)
        with Image.open(path) as image:
            image.verify()  # the checksums; after it the file must be opened anew
        with Image.open(path) as image:
            image.load()
            seen = {"file_mode": image.mode, "file_width": image.width, "file_height": image.height}
            return {**facts, **seen, "readable": True}
    except DECODE_ERRORS:
        return {**facts, "readable": False}


def _read_pairs(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"{path} is missing: run `dvc repro degrade_pairs` first")
    again = "run `dvc repro -f -s degrade_pairs` again"
    # Nothing else stands for an empty cell: a group may well be called NA.
    empty = {"psnr_db": ["nan"], "ssim": ["nan"]}
    columns = list(PAIR_COLUMNS)
    try:
        frame = pd.read_csv(path, usecols=columns, dtype=PAIR_COLUMNS, keep_default_na=False, na_values=empty)
    except ValueError as error:  # those of pandas are ValueErrors too
        raise UserError(f"{path} is not a list of pairs of ours ({error}): {again}") from None
    if frame.empty:
        raise UserError(f"{path} lists no pairs: {again}")
    return frame


def _splits_of(frame: pd.DataFrame, column: str) -> "pd.Series[Any]":
    """Return for each line in how many splits its value of the column occurs; more than one is a leak."""
    return frame.groupby(column)["split"].transform("nunique")


def _summary(frame: pd.DataFrame, rules: list[Rule], data_docs: Path) -> dict[str, Any]:
    counts = frame["split"].value_counts()
    return {
        "expectations": len(rules),
        "passed": len(rules),
        "rows": len(frame),
        "per_split": {split: int(counts[split]) for split in SPLITS},
        "data_docs": _index_page(data_docs).as_posix(),
    }


def _means(frame: pd.DataFrame) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return the mean PSNR and SSIM by split and degradation."""
    means: dict[str, dict[str, dict[str, float | None]]] = {split: {} for split in SPLITS}
    finite = frame.replace({"psnr_db": math.inf}, math.nan)
    for (split, degradation), group in finite.groupby(["split", "degradation"]):
        found = {name: float(group[name].mean()) for name in ("psnr_db", "ssim")}
        means[str(split)][str(degradation)] = {name: None if math.isnan(mean) else mean for name, mean in found.items()}
    return means


def _index_page(data_docs: Path) -> Path:
    return data_docs / "index.html"
