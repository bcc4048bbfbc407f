"""opinion.md, opinion.png and votes.csv: what raters said in an opinion study."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from clearcall.core.errors import UserError
from clearcall.core.files import atomic_path, write_csv
from clearcall.opinion.statistics import Mean, Scores, mean_interval, paired_tests, preferences, screen
from clearcall.opinion.stimuli import PREFERENCE, REFERENCE, SCALES, VOTES, Study
from clearcall.opinion.votes import Vote, Votes
from clearcall.reporting.charts import new_figure, save_figure
from clearcall.reporting.page import Page
from clearcall.reporting.tables import markdown_table

NAME, CHART, TABLE = "opinion.md", "opinion.png", "votes.csv"
ALL = "all"  # conditions together
_LEAST_STIMULI = 6  # of fewer, no signed-rank test reaches p < 0.05
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")  # Okabe and Ito's
_Table = dict[str, dict[str, dict[str, int]]]  # rater, item, scale
_Means = Mapping[tuple[str, str, str], Mean]  # scale, system, condition


def write_opinion(study: Study, reports: Path, command: str, *, include_synthetic: bool = False) -> Path:
    """Write reports/opinion.md, and with votes also opinion.png (of scores) and votes.csv; return the page's path.

    Synthetic votes are ignored; `include_synthetic` is for tests. Raises UserError if `reports` is no folder.
    """
    try:
        reports.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{reports} is a file or lies under one: name a folder for the report") from None
    stored = Votes(study).all() if (study.folder / VOTES).is_file() else []
    votes = [vote for vote in stored if include_synthetic or not vote.synthetic]
    page = Page("Opinions")
    page.made_by(command)
    page.add(_about(study))
    if include_synthetic:
        page.add("**Synthetic votes are included: this page is a test's and says nothing about the systems.**")
    elif ignored := len(stored) - len(votes):
        page.add(f"{ignored} synthetic scores of {_raters(stored) - _raters(votes)} test raters are ignored.")
    if not votes:
        page.add("**No votes yet.**")
        return page.write(reports / NAME)
    given: _Table = {}
    for vote in votes:
        given.setdefault(vote.rater, {}).setdefault(vote.item, {})[vote.scale] = vote.score
    rated = {item.id for item in study.rated}
    complete = {rater: items for rater, items in given.items() if rated <= set(items)}
    incomplete = {rater: len(items) for rater, items in given.items() if rater not in complete}
    rejected = _add_raters(page, study, complete, incomplete)
    counted = {rater: items for rater, items in complete.items() if rater not in rejected}
    write_csv(reports / TABLE, [*_rows(study, votes, {"screened out": rejected, "incomplete": [*incomplete]})])
    if not counted:
        page.add("**No rater counts yet: nothing is averaged.**")
    elif study.method == "acr":
        _add_scores(page, study, counted, reports)
    else:
        _add_preferences(page, study, counted)
    page.add(f"Every vote: [{TABLE}]({TABLE}).")
    return page.write(reports / NAME)


def _about(study: Study) -> str:
    images = {one.image for one in study.stimuli.values() if not one.training}
    what = (
        f"absolute category rating with a hidden reference (ITU-T P.910), 1 to 5, on {', '.join(SCALES)}"
        if study.method == "acr"
        else "paired comparison of all systems and the reference, with ties"
    )
    return (
        f"Method: {what}. {len(images)} images, crops of {study.crop[0]}x{study.crop[1]} pixels; "
        f"systems {', '.join(study.systems)}; conditions {', '.join(study.conditions)}; seed {study.seed}. "
        f"{len(study.rated)} items a rater, in an order of each rater's own, after training that is not counted. "
        "Raters were not supervised: screens and viewing distances are their own."
    )


def _raters(votes: Sequence[Vote]) -> int:
    return len({vote.rater for vote in votes})


def _add_raters(page: Page, study: Study, complete: _Table, incomplete: Mapping[str, int]) -> list[str]:
    """Add who counts and who does not; return the codes of those whom screening leaves out."""
    page.add("## Raters")
    lines = [f"{len(complete)} rated all items."]
    if incomplete:
        told = ", ".join(f"`{rater}` ({count} of {len(study.rated)})" for rater, count in incomplete.items())
        lines.append(f"{len(incomplete)} have not finished, and are not counted: {told}.")
    rejected: list[str] = []
    if study.method == "pairs":
        lines.append("Screening by BT.500 is of scores; pairs have none.")
    elif complete:
        cells = [*product([item.id for item in study.rated], study.scales)]
        matrix = np.array([[items[item][scale] for item, scale in cells] for items in complete.values()], np.float64)
        for rater, one in zip(complete, screen(matrix), strict=True):
            if one.rejected:
                rejected.append(rater)
                outlying = f"{one.above} scores above and {one.below} below the limits, of {one.scores}"
                lines.append(f"Left out by ITU-R BT.500 screening: `{rater}` ({outlying}).")
        if not rejected:
            lines.append("ITU-R BT.500 screening (beta2) leaves nobody out.")
    page.add_list(*lines)
    return rejected


def _rows(study: Study, votes: Sequence[Vote], not_counted: Mapping[str, Sequence[str]]) -> Iterator[dict[str, object]]:
    """Yield the rows of votes.csv, of whoever gave them, with why a rater is not counted."""
    for vote in votes:
        shown = [study.stimuli[one] for one in study.items[vote.item].stimuli]
        compared = {"second_system": shown[1].system} if study.method == "pairs" else {}
        yield {
            "rater": vote.rater,
            "image": shown[0].image,
            "condition": shown[-1].condition,
            "system": shown[0].system,
            **compared,
            "scale": vote.scale,
            "score": vote.score,
            "voted": vote.voted,
            "not_counted": next((why for why, raters in not_counted.items() if vote.rater in raters), ""),
        }


def _scores_of(study: Study, counted: _Table, system: str, condition: str, scale: str) -> Scores:
    """Return scores as (raters, stimuli), by image and condition; of the reference, the image's own at each place."""
    wanted = study.conditions if condition == ALL else (condition,)
    by_place = {(one.image, one.condition, one.system): one.id for one in study.stimuli.values() if not one.training}
    images = sorted({image for image, *_ in by_place})
    places = [(image, "" if system == REFERENCE else one, system) for image in images for one in wanted]
    return np.array([[items[by_place[one]][scale] for one in places] for items in counted.values()], np.float64)


def _add_scores(page: Page, study: Study, counted: _Table, reports: Path) -> None:
    conditions = [*study.conditions, *([ALL] if len(study.conditions) > 1 else [])]
    means: dict[tuple[str, str, str], Mean] = {}
    for scale, system, condition in product(study.scales, (*study.systems, REFERENCE), conditions):
        if system != REFERENCE or condition == conditions[-1]:
            means[scale, system, condition] = mean_interval(
                _scores_of(study, counted, system, condition, scale).mean(axis=1)
            )
    with atomic_path(reports / CHART) as temporary:
        _draw(temporary, study, means, conditions)
    page.add("## Mean opinion scores", f"![Mean opinion scores with 95 % intervals]({CHART})")
    page.add(f"{len(counted)} raters. Intervals are of 95 %: Student's t over the raters' own means.")
    _add_means(page, study, means, conditions)
    page.add(
        "The hidden reference, once an image: "
        + "; ".join(f"{scale} {_told(means[scale, REFERENCE, conditions[-1]])}" for scale in study.scales)
        + "."
    )
    page.add("## Against the hidden reference (DMOS)")
    page.add("Score minus the same rater's score of that image's reference, plus 5 (ITU-T P.910); 5 is no difference.")
    differences = {}
    for scale, system, condition in product(study.scales, study.systems, conditions):
        of_system, of_reference = (_scores_of(study, counted, one, condition, scale) for one in (system, REFERENCE))
        differences[scale, system, condition] = mean_interval((of_system - of_reference + 5).mean(axis=1))
    _add_means(page, study, differences, conditions)
    page.add("## Paired tests")
    page.add(
        "Wilcoxon's signed-rank test on the means over raters of each stimulus (image and condition), two-sided; p is "
        "corrected by Holm over the pairs of a scale. It generalises over images, not over raters."
    )
    rows, count = [], 0
    for scale in study.scales:
        by_system = {one: _scores_of(study, counted, one, ALL, scale).mean(axis=0) for one in study.systems}
        for one in paired_tests(by_system):
            count = one.pairs
            rows.append([scale, one.first, one.second, f"{one.difference:+.2f}", f"{one.p:.4f}", f"{one.p_holm:.4f}"])
    if rows:
        page.add(markdown_table(["scale", "system", "against", "difference", "p", "p (Holm)"], rows))
        if count < _LEAST_STIMULI:
            page.add(f"With {count} stimuli a system, no p can be below 0.05: take more images.")
    else:
        page.add("There is one system, and nothing to compare.")


def _add_means(page: Page, study: Study, means: _Means, conditions: Sequence[str]) -> None:
    rows = [
        [condition, system, *(_told(means[scale, system, condition]) for scale in study.scales)]
        for condition, system in product(conditions, study.systems)
    ]
    page.add(markdown_table(["condition", "system", *study.scales], rows))


def _told(mean: Mean) -> str:
    return f"{mean.value:.2f}" + ("" if mean.half_width is None else f" ± {mean.half_width:.2f}")


def _draw(path: Path, study: Study, means: _Means, conditions: Sequence[str]) -> None:
    """Draw the mean opinion scores of each scale, system by system, with their intervals."""
    figure = new_figure(3.4 * len(study.scales), 4.2)
    shown = [one for one in conditions if one != ALL]
    for axis, scale in zip(figure.subplots(1, len(study.scales), sharey=True), study.scales, strict=True):
        for index, condition in enumerate(shown):
            places = [at + (index - (len(shown) - 1) / 2) * 0.18 for at in range(len(study.systems))]
            found = [means[scale, system, condition] for system in study.systems]
            axis.errorbar(
                places,
                [one.value for one in found],
                [one.half_width or 0 for one in found],
                fmt="osD^vP"[index % 6],
                color=_COLOURS[index % len(_COLOURS)],
                capsize=4,
                label=condition,
            )
        reference = means[scale, REFERENCE, conditions[-1]].value
        axis.axhline(reference, color="black", linestyle=":", label="hidden reference")
        axis.set_title(scale)
        axis.set_xticks(range(len(study.systems)), study.systems, rotation=30)
        axis.set_ylim(0.8, 5.2)
        axis.grid(axis="y", alpha=0.3)
    figure.axes[0].set_ylabel("mean opinion score, 1 to 5")
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=len(shown) + 1, frameon=False)
    save_figure(figure, path)


def _add_preferences(page: Page, study: Study, counted: _Table) -> None:
    page.add("## Preferences")
    page.add(
        f"{len(counted)} raters. The share is of the votes for one of the two, with Wilson's interval of 95 %, which "
        "takes votes for independent. The sign test counts each rater once, by which of the two he or she preferred "
        "more often; p is corrected by Holm over the pairs of a condition."
    )
    conditions = [*study.conditions, *([ALL] if len(study.conditions) > 1 else [])]
    rows = []
    for condition in conditions:
        votes: dict[tuple[str, str], dict[str, list[int]]] = {}
        for item, (rater, given) in product(study.rated, counted.items()):
            first, second = (study.stimuli[one] for one in item.stimuli)
            if condition in {ALL, second.condition}:
                by_rater = votes.setdefault((first.system, second.system), {})
                by_rater.setdefault(rater, []).append(given[item.id][PREFERENCE])
        for one in preferences(votes):
            share = "" if one.share is None else f"{one.share:.0%} ({one.low:.0%} to {one.high:.0%})"
            row = [condition, one.first, one.second, one.wins, one.ties, one.losses, share, one.raters]
            rows.append([*row, f"{one.p:.4f}", f"{one.p_holm:.4f}"])
    headers = ["condition", "first", "second", "first better", "no difference", "second better", "share of the first"]
    page.add(markdown_table([*headers, "raters with a preference", "p", "p (Holm)"], rows))
