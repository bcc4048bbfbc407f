"""Checks of photographs and pairs by Great Expectations."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from clearcall.core.console import track
from clearcall.core.errors import UserError
from clearcall.core.files import atomic_folder, sha256_of, write_text
from clearcall.data.manifest import CLIP_FRAMES, MANIFEST, SPLITS, read_manifest
from clearcall.data.pairs import INDEX, read_pairs
from clearcall.imaging.decode import MAX_PIXELS, image_errors, open_image
from clearcall.params import CheckData, CheckPairs, CountPerSplit, DegradePairs

PAIR_KEY = ["image", "scale", "degradation", "variant"]
OFFENDERS_SHOWN = 10  # in the message
FAILING_OPEN = 10  # on the page, of each expectation
FAILING_LISTED = 500  # on the page, once unfolded
PAGE = "index.html"
_LIBRARY = "great_expectations"  # folder of the library's own pages, beside ours
_ANY_SPLIT = f"{', '.join(SPLITS[:-1])} or {SPLITS[-1]}"
_SIDES = (("wide", "width"), ("high", "height"))


@dataclass(frozen=True)
class Finding:
    """The result of one expectation, in words, and the names of what breaks it."""

    words: str
    passed: bool
    observed: str
    failing: Sequence[str]


@dataclass(frozen=True)
class Rule:
    """One expectation: a sentence, a class of `great_expectations.expectations`, its arguments.

    `words` must be unique. `detail` is a format string over the columns, shown of a line that fails. `where` is a
    column and a value: other lines are skipped. `unit` is that of a range. Great Expectations skips empty cells, so a
    column that may be empty needs a rule against that.
    """

    words: str
    expectation: str
    arguments: dict[str, Any]
    detail: str = ""
    where: tuple[str, str | bool] | None = None
    unit: str = ""


def _one_of(words: str, column: str, *values: str | bool | int, detail: str = "") -> Rule:
    return Rule(words, "ExpectColumnValuesToBeInSet", {"column": column, "value_set": list(values)}, detail)


def _equal(words: str, one: str, other: str, detail: str = "") -> Rule:
    # A file that cannot be read has no facts to compare; the rule about reading names it already.
    pair = {"column_A": one, "column_B": other, "ignore_row_if": "either_value_is_missing"}
    return Rule(words, "ExpectColumnPairValuesToBeEqual", pair, detail)


def _between(
    words: str, column: str, low_high: tuple[float, float], unit: str = "", where: tuple[str, bool] | None = None
) -> Rule:
    """Return a rule about a column's range; `words` has a place for the limits."""
    limits = {"column": column, "min_value": low_high[0], "max_value": low_high[1]}
    full = words.format(_range(*low_high, unit))
    return Rule(full, "ExpectColumnValuesToBeBetween", limits, f"{{{column}:,g}} {unit}".strip(), where, unit)


def _enough(noun: str, least: CountPerSplit) -> list[Rule]:
    return [
        Rule(
            f"The {split} split has at least {_number(count, noun)}",
            "ExpectTableRowCountToBeBetween",
            {"min_value": count},
            where=("split", split),
        )
        for split, count in least
    ]


def image_rules(limits: CheckData) -> list[Rule]:
    """Return the rules for photographs, over the manifest's columns and facts of the files, `file_*`."""
    content = "{split} split, SHA-256 {file_sha256:.12}"
    return [
        _one_of("Every photograph can be read to its end", "readable", True),  # noqa: FBT003  # a value of the column
        _one_of(
            "Every photograph has three channels of 8 bits (RGB)", "file_mode", "RGB", detail="Pillow mode {file_mode}"
        ),
        _between("Every photograph is {} wide", "file_width", limits.side_range, "px"),
        _between("Every photograph is {} high", "file_height", limits.side_range, "px"),
        *(
            _equal(
                f"Every photograph is as {word} as the manifest says",
                f"file_{side}",
                side,
                f"{{file_{side}:g}} px, not {{{side}:g}} px",
            )
            for word, side in _SIDES
        ),
        _equal("Every photograph has the SHA-256 that the manifest gives", "file_sha256", "sha256"),
        Rule(
            "No two photographs are the same file", "ExpectColumnValuesToBeUnique", {"column": "file_sha256"}, content
        ),
        _one_of("No photograph is in more than one split", "splits_of_file", 1, detail=content),
        _unsplit_groups(),
        _one_of(f"Every photograph belongs to {_ANY_SPLIT}", "split", *SPLITS, detail="{split}"),
        *_enough("photographs", limits.min_images),
    ]


def _unsplit_groups() -> Rule:
    words = "No group of photographs is in more than one split"
    return _one_of(words, "splits_of_group", 1, detail="{split} split, group {group}")


def partner_rules() -> list[Rule]:
    """Return the rules for blurred partners, over facts of their files, `degraded_*`."""
    partner = "partner {degraded}"
    return [
        _one_of("Every blurred partner can be read to its end", "degraded_readable", True, detail=partner),  # noqa: FBT003  # as above
        _one_of(
            "Every blurred partner has three channels of 8 bits (RGB)",
            "degraded_mode",
            "RGB",
            detail=f"{partner}: Pillow mode {{degraded_mode}}",
        ),
        *(
            _equal(
                f"Every blurred partner is as {word} as its photograph",
                f"degraded_{side}",
                side,
                f"{partner}: {{degraded_{side}:g}} px, not {{{side}:g}} px",
            )
            for word, side in _SIDES
        ),
        _equal(
            "Every blurred partner has the SHA-256 that the manifest gives",
            "degraded_file_sha256",
            "degraded_sha256",
            partner,
        ),
    ]


def before_rules() -> list[Rule]:
    """Return the rules for the frames before those of videos, over facts of their files, `before_*`."""
    earlier = "earlier frames {before}"
    rules = [
        _one_of("Every file of earlier video frames can be read to its end", "before_readable", True),  # noqa: FBT003  # as above
        _equal("Every file of earlier video frames is as wide as its photograph", "before_width", "width"),
        _one_of("Every file of earlier video frames holds complete frames", "before_rest", 0),
        _equal(
            "Every file of earlier video frames has the SHA-256 that the manifest gives",
            "before_file_sha256",
            "before_sha256",
        ),
    ]
    return [replace(rule, detail=earlier, where=("has_before", True)) for rule in rules]


def pair_rules(limits: CheckPairs, mix: Iterable[str]) -> list[Rule]:
    """Return the rules for pairs; `clean` marks those whose degradation changes nothing."""
    of_mix = {"column": "degradation", "value_set": list(mix)}
    degraded = ("clean", False)
    return [
        *(
            _equal(
                f"Both images of every pair are equally {word}",
                f"degraded_{side}",
                side,
                f"degraded {{degraded_{side}:g}} px, sharp {{{side}:g}} px",
            )
            for word, side in _SIDES
        ),
        Rule("Every pair has a PSNR", "ExpectColumnValuesToNotBeNull", {"column": "psnr_db"}),
        Rule("Every pair has an SSIM", "ExpectColumnValuesToNotBeNull", {"column": "ssim"}),
        _between("The PSNR of every degraded pair is {}", "psnr_db", limits.psnr_db_range, "dB", degraded),
        _between("The SSIM of every degraded pair is {}", "ssim", limits.ssim_range, "", degraded),
        Rule("No pair is listed twice", "ExpectCompoundColumnsToBeUnique", {"column_list": PAIR_KEY}, "line {line}"),
        _one_of("No photograph is in more than one split", "splits_of_image", 1, detail="{split} split"),
        _unsplit_groups(),
        _one_of(f"Every pair belongs to {_ANY_SPLIT}", "split", *SPLITS, detail="{split}"),
        *(
            Rule(
                f"The {split} split has every degradation of the mix",
                "ExpectColumnDistinctValuesToContainSet",
                of_mix,
                where=("split", split),
            )
            for split in SPLITS
        ),
        *_enough("pairs", limits.min_pairs),
    ]


def check_images(raw: Path, limits: CheckData, docs: Path) -> dict[str, Any]:
    """Check manifest and files; return the summary, or raise UserError naming each fault.

    Images are decoded one at a time. The folder `docs` is replaced by the results as web pages.
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
    with_before = any(record.before for record in records)
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
    if with_before:
        frame["has_before"] = frame["before"] != ""
        frame["before_rest"] = frame["before_height"] % frame["height"]
    frame["splits_of_file"] = _splits_of(frame, "file_sha256")
    frame["splits_of_group"] = _splits_of(frame, "group")
    advice = (
        "Replace or remove the photographs that fail, or add some to a split that has too few (the column `source` of "
        f"{path} names the originals). Or change the limits under `check_data` in params.yaml. "
        "Then run `dvc repro` again."
    )
    rules = image_rules(limits) + (partner_rules() if paired else []) + (before_rules() if with_before else [])
    return _judge(path, frame, "photographs", "path", rules, advice, docs)


def check_pairs(pairs: Path, limits: CheckPairs, degrade: DegradePairs, docs: Path) -> dict[str, Any]:
    """Check the list of pairs; return the summary, or raise UserError naming each fault.

    The folder `docs` is replaced by the results as web pages. The summary's means leave out infinite PSNR (of identical
    images), and are None where all are infinite.
    """
    path = pairs / INDEX
    again = "run `dvc repro -f -s degrade_pairs` again"
    try:
        records = read_pairs(pairs)
    except (ValueError, TypeError) as error:  # as of the manifest
        raise UserError(f"{path} is not a list of pairs of ours ({error}): {again}") from None
    if not records:
        raise UserError(f"{path} lists no pairs: {again}")
    frame = pd.DataFrame({name: [getattr(record, name) for record in records] for name in asdict(records[0])})
    frame["pair"] = [f"{i} [x{s:g}, {d}, variant {v}]" for i, s, d, v in frame[PAIR_KEY].itertuples(index=False)]
    frame["clean"] = frame["degradation"].isin([name for name, steps in degrade.degradations.items() if not steps])
    frame["splits_of_image"] = _splits_of(frame, "image_sha256")
    frame["splits_of_group"] = _splits_of(frame, "group")
    advice = (
        "Change `degrade_pairs` or the limits under `check_pairs` in params.yaml, or add photographs where a split has "
        "too few. Then run `dvc repro` again."
    )
    summary = _judge(path, frame, "pairs", "pair", pair_rules(limits, degrade.mix), advice, docs)
    return {**summary, "mean": _means(frame)}


def _judge(
    path: Path, frame: pd.DataFrame, noun: str, key: str, rules: list[Rule], advice: str, docs: Path
) -> dict[str, Any]:
    """Write the page; return the summary, or raise UserError naming each broken rule and its offenders."""
    frame["line"] = range(2, len(frame) + 2)  # in the file, below its header
    counts = {split: int((frame["split"] == split).sum()) for split in dict.fromkeys([*SPLITS, *frame["split"]])}
    page = docs / PAGE
    # A failed check leaves its pages too: the message names them.
    with atomic_folder(docs) as building:
        results = _validate(frame, key, rules, docs.name, building / _LIBRARY)
        findings = [_finding(rule, results[rule.words], frame, noun, key) for rule in rules]
        write_page(building / PAGE, path, noun, counts, findings, advice, f"{_LIBRARY}/index.html")
    if broken := [finding for finding in findings if not finding.passed]:
        lines = "".join(f"\n  {_line(finding)}" for finding in broken)
        found = f"{path} breaks {len(broken)} of {len(rules)} expectations:{lines}"
        raise UserError(f"{found}\n{advice}\nAll results on one page: {page}")
    return {
        "expectations": len(rules),
        "passed": len(rules),
        "rows": len(frame),
        "per_split": counts,
        "data_docs": page.as_posix(),
    }


def _validate(frame: pd.DataFrame, key: str, rules: list[Rule], name: str, docs: Path) -> dict[str, Any]:
    """Run Great Expectations on a frame and write its own pages; return its results by words.

    `key` is the column that names an offender.
    """
    # Imported here: it takes five seconds.
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
            description=rule.words,
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
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [key, "line"]},
    )
    context.build_data_docs()
    # They come back in another order.
    return {str(config.description): result for result in validated.results if (config := result.expectation_config)}


def _finding(rule: Rule, validated: Any, frame: pd.DataFrame, noun: str, key: str) -> Finding:  # noqa: ANN401  # the library has no types
    """Return a result of Great Expectations in plain words."""
    result: dict[str, Any] = validated.result
    lines = frame if rule.where is None else frame[frame[rule.where[0]] == rule.where[1]]
    failing: list[str] = []
    match rule.expectation:
        case "ExpectTableRowCountToBeBetween":
            observed = _number(result["observed_value"], noun)
        case "ExpectColumnDistinctValuesToContainSet":
            wanted, found = rule.arguments["value_set"], set(lines[rule.arguments["column"]])
            missing = [name for name in wanted if name not in found]
            failing = [f"{_visible(name)} is missing" for name in missing]
            observed = f"{len(wanted) - len(missing)} of {len(wanted)} degradations"
        case _:
            failing = [
                _offender(frame.iloc[entry["line"] - 2], key, rule.detail) for entry in result["unexpected_index_list"]
            ]
            observed = _counted(result, noun)
            if "min_value" in rule.arguments and len(values := lines[rule.arguments["column"]].dropna()):
                observed += f"; values: {_range(values.min(), values.max(), rule.unit)}"
    return Finding(rule.words, bool(validated.success), observed, failing)


def _counted(result: dict[str, Any], noun: str) -> str:
    unknown = result.get("missing_count", 0)
    known = result["element_count"] - unknown
    passing = f"{known - result['unexpected_count']:,} of {known:,} {noun} pass" if known else f"no {noun} to check"
    return f"{passing} ({unknown:,} could not be checked)" if unknown else passing


def _offender(line: "pd.Series[Any]", key: str, detail: str) -> str:
    """Return the name of a line that breaks a rule, with what it has instead."""
    return _visible(f"{line[key]} ({detail.format_map(line)})" if detail else str(line[key]))


def _visible(name: str) -> str:
    """Return a name with control characters and marks of writing direction as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _range(low: float, high: float, unit: str) -> str:
    return (f"{low:,g} {unit}" if low == high else f"{low:,g} to {high:,g} {unit}").strip()


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun.removesuffix('s') if count == 1 else noun}"


def _line(finding: Finding) -> str:
    """Return a broken rule as a line of the message."""
    line = f"{finding.words}; observed: {finding.observed}"
    if finding.failing:
        hidden = len(finding.failing) - OFFENDERS_SHOWN
        line += f". Failing: {', '.join(finding.failing[:OFFENDERS_SHOWN])}"
        line += f" ... and {hidden:,} more" if hidden > 0 else ""
    return line


def _file_facts(path: Path) -> dict[str, Any]:
    """Return facts of an image file; None for what cannot be read."""
    facts: dict[str, Any] = dict.fromkeys(("file_sha256", "file_mode", "file_width", "file_height"))
    try:
        facts["file_sha256"] = sha256_of(path)
        with image_errors(path), open_image(path, CLIP_FRAMES * MAX_PIXELS) as image:
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
    """Return for each line the number of splits with its value of the column: above one is a leak."""
    return frame.groupby(column)["split"].transform("nunique")


def _means(frame: pd.DataFrame) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return the mean PSNR and SSIM by split and degradation."""
    means: dict[str, dict[str, dict[str, float | None]]] = {split: {} for split in SPLITS}
    finite = frame.replace({"psnr_db": math.inf}, math.nan)
    for (split, degradation), group in finite.groupby(["split", "degradation"]):
        found = {name: float(group[name].mean()) for name in ("psnr_db", "ssim")}
        means[str(split)][str(degradation)] = {name: None if math.isnan(mean) else mean for name, mean in found.items()}
    return means


def write_page(
    path: Path, checked: Path, noun: str, counts: Mapping[str, int], findings: Sequence[Finding], advice: str, more: str
) -> None:
    """Write the self-contained page of a check.

    `checked` is the checked file, `noun` names its lines, `counts` is their number by split, `more` links to the pages
    of Great Expectations.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template("check_page.html.j2").render(
        checked=checked.as_posix(),
        noun=noun,
        counts=counts,
        findings=findings,
        failed=[finding for finding in findings if not finding.passed],
        advice=advice,
        more=more,
        open=FAILING_OPEN,
        listed=FAILING_LISTED,
    )
    write_text(path, text)
