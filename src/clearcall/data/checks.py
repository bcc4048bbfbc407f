"""Checks of the photographs and of the pairs by Great Expectations; this is its only importer."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd

from clearcall.console import track
from clearcall.data.manifest import MANIFEST, SPLITS, read_manifest
from clearcall.data.pairs import INDEX, read_pairs
from clearcall.decoding import MAX_PIXELS, image_errors, open_image
from clearcall.errors import UserError
from clearcall.files import atomic_folder, sha256_of
from clearcall.params import CheckData, CheckPairs, CountPerSplit, DegradePairs

PAIR_KEY = ["image", "scale", "degradation", "variant"]
OFFENDERS_SHOWN = 10
_STACKED = 8  # frames of a film in one file, at most


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


def partner_rules() -> list[Rule]:
    """Return what must hold for the blurred partners that a source brings: facts of their files as `degraded_*`."""
    return [
        _one_of("every partner is there and decodes to its end", "degraded_readable", True),  # noqa: FBT003  # as above
        _one_of("every partner has three channels of 8 bits", "degraded_mode", "RGB"),
        _equal("every partner is as wide as its photograph", "degraded_width", "width"),
        _equal("every partner is as high as its photograph", "degraded_height", "height"),
        _equal("every partner has the hash that the manifest gives", "degraded_file_sha256", "degraded_sha256"),
    ]


def before_rules() -> list[Rule]:
    """Return what must hold for the frames before those of films: facts of their files as `before_*`."""
    readable, wide, rest, same = (
        f"what was before every frame of a film {words}"
        for words in (
            "decodes to its end",
            "is as wide as it",
            "is whole frames",
            "has the hash that the manifest gives",
        )
    )
    return [
        _one_of(readable, "before_readable", True),  # noqa: FBT003  # as above
        _equal(wide, "before_width", "width"),
        _one_of(rest, "before_rest", 0),
        _equal(same, "before_file_sha256", "before_sha256"),
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


def check_images(raw: Path, limits: CheckData, docs: Path) -> dict[str, Any]:
    """Check the manifest against the files and the limits; return the summary, or raise UserError naming each fault.

    Pictures are decoded one at a time. The folder `docs` is replaced by the results as web pages.
    """
    path = raw / MANIFEST
    again = "run `dvc repro -f -s download_data` again"
    try:
        records = read_manifest(raw)
    except (ValueError, TypeError) as error:  # a cell that is no number; a line with too few or too many cells
        raise UserError(f"{path} is not a manifest of ours ({error}): {again}") from None
    if not records:
        raise UserError(f"{path} lists no photographs: {again}")
    paired = any(record.degraded for record in records)
    filmed = any(record.before for record in records)
    facts = [
        {
            **asdict(record),
            **_file_facts(raw / record.path),
            **(_further_facts(raw / record.degraded, "degraded") if paired else {}),
            **(_further_facts(raw / record.before, "before") if record.before else {}),
        }
        for record in track(records, len(records), "checking photographs")
    ]
    frame = pd.DataFrame(facts)
    if filmed:
        frame["before_rest"] = frame["before_height"] % frame["height"]
    frame["splits_of_file"] = _splits_of(frame, "file_sha256")
    frame["splits_of_group"] = _splits_of(frame, "group")
    mend = "Mend or remove these photographs at their source, then run `dvc repro` again."
    rules = image_rules(limits) + (partner_rules() if paired else []) + (before_rules() if filmed else [])
    return _judge(path, frame, "path", rules, mend, docs)


def check_pairs(pairs: Path, limits: CheckPairs, degrade: DegradePairs, docs: Path) -> dict[str, Any]:
    """Check the list of pairs against the limits; return the summary, or raise UserError naming each fault.

    The folder `docs` is replaced by the results as web pages. The summary's means leave out infinite PSNR (of identical
    pictures); where nothing else is left the mean is None.
    """
    path = pairs / INDEX
    again = "run `dvc repro -f -s degrade_pairs` again"
    try:
        records = read_pairs(pairs)
    except (ValueError, TypeError) as error:  # as of the manifest
        raise UserError(f"{path} is not a list of pairs of ours ({error}): {again}") from None
    if not records:
        raise UserError(f"{path} lists no pairs: {again}")
    frame = pd.DataFrame(map(asdict, records))
    frame["pair"] = [f"{i} [x{s:g}, {d}, variant {v}]" for i, s, d, v in frame[PAIR_KEY].itertuples(index=False)]
    frame["clean"] = frame["degradation"].isin([name for name, steps in degrade.degradations.items() if not steps])
    frame["splits_of_image"] = _splits_of(frame, "image_sha256")
    frame["splits_of_group"] = _splits_of(frame, "group")
    mend = "Change `degrade_pairs` or the limits in `check_pairs` in params.yaml, then run `dvc repro` again."
    summary = _judge(path, frame, "pair", pair_rules(limits, degrade.mix), mend, docs)
    return {**summary, "mean": _means(frame)}


def _judge(path: Path, frame: pd.DataFrame, key: str, rules: list[Rule], mend: str, docs: Path) -> dict[str, Any]:
    """Return the summary of a frame that keeps all rules; raise UserError naming each that it breaks, and by whom."""
    # A failed check leaves its pages too: the message names them.
    with atomic_folder(docs) as building:
        broken = _validate(frame, key, rules, docs.name, building)
    page = docs / "index.html"
    if broken:
        lines = "".join(f"\n  {line}" for line in broken)
        found = f"{path} breaks {len(broken)} of {len(rules)} expectations:{lines}"
        raise UserError(f"{found}\n{mend}\nAll results as web pages: {page}")
    counts = frame["split"].value_counts()
    return {
        "expectations": len(rules),
        "passed": len(rules),
        "rows": len(frame),
        "per_split": {split: int(counts[split]) for split in SPLITS},
        "data_docs": page.as_posix(),
    }


def _validate(frame: pd.DataFrame, key: str, rules: list[Rule], name: str, docs: Path) -> list[str]:
    """Hold a frame against the rules with Great Expectations and write the Data Docs; return a line for each fault.

    `key` is the column that names an offender.
    """
    # It takes five seconds to import: only a process that checks pays for it.
    import great_expectations as gx  # noqa: PLC0415
    from great_expectations.data_context.types import base  # noqa: PLC0415
    from great_expectations.expectations.row_conditions import Column  # noqa: PLC0415

    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.absolute())}
    settings = base.DataContextConfig(
        store_backend_defaults=base.InMemoryStoreBackendDefaults(),
        data_docs_sites={name: {"class_name": "SiteBuilder", "store_backend": store, "show_how_to_buttons": False}},
        analytics_enabled=False,
        progress_bars=base.ProgressBarsConfig(globally=False),
    )
    context = gx.get_context(mode="ephemeral", project_config=settings)
    # Else every page hands it to the vendor, whose site the logo comes from.
    context.variables.data_context_id = None  # type: ignore[assignment]  # its getter may return None
    expectations = [
        getattr(gx.expectations, rule.expectation)(
            **rule.arguments,
            description=str(rule),
            row_condition=Column(rule.where[0]) == rule.where[1] if rule.where else None,
        )
        for rule in rules
    ]
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
    asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    data = asset.add_batch_definition_whole_dataframe(name)
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=data, suite=suite))
    validated = definition.run(
        batch_parameters={"dataframe": frame},
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [key]},
    )
    context.build_data_docs()
    # They come back in another order.
    results = {config.description: result for result in validated.results if (config := result.expectation_config)}
    broken = [(rule, results[str(rule)].result) for rule in rules if not results[str(rule)].success]
    return [f"{rule}: {_listed(_offenders(result, key))}" for rule, result in broken]


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


def _listed(offenders: list[str]) -> str:
    hidden = len(offenders) - OFFENDERS_SHOWN
    return ", ".join(offenders[:OFFENDERS_SHOWN]) + (f" ... and {hidden} more" if hidden > 0 else "")


def _file_facts(path: Path) -> dict[str, Any]:
    """Return what a picture file holds; None stands for what cannot be known because it cannot be read."""
    facts: dict[str, Any] = dict.fromkeys(("file_sha256", "file_mode", "file_width", "file_height"))
    try:
        facts["file_sha256"] = sha256_of(path)
        with image_errors(path), open_image(path, _STACKED * MAX_PIXELS) as image:
            image.load()
            seen = {"file_mode": image.mode, "file_width": image.width, "file_height": image.height}
            return {**facts, **seen, "readable": True}
    except (UserError, OSError):  # of the decoder, and of a file that is not there
        return {**facts, "readable": False}


def _further_facts(path: Path, prefix: str) -> dict[str, Any]:
    facts = _file_facts(path)
    names = {"file_sha256": f"{prefix}_file_sha256", "readable": f"{prefix}_readable"}
    return {names.get(name, name.replace("file_", f"{prefix}_")): fact for name, fact in facts.items()}


def _splits_of(frame: pd.DataFrame, column: str) -> "pd.Series[Any]":
    """Return for each line in how many splits its value of the column occurs; more than one is a leak."""
    return frame.groupby(column)["split"].transform("nunique")


def _means(frame: pd.DataFrame) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return the mean PSNR and SSIM by split and degradation."""
    means: dict[str, dict[str, dict[str, float | None]]] = {split: {} for split in SPLITS}
    finite = frame.replace({"psnr_db": math.inf}, math.nan)
    for (split, degradation), group in finite.groupby(["split", "degradation"]):
        found = {name: float(group[name].mean()) for name in ("psnr_db", "ssim")}
        means[str(split)][str(degradation)] = {name: None if math.isnan(mean) else mean for name, mean in found.items()}
    return means
