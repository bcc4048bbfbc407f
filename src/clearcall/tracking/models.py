"""Registered versions: list, show, compare, promote, roll back, retire."""

import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from clearcall.core.errors import UserError, redact
from clearcall.evaluation.results import FULL_HD
from clearcall.params import Gate
from clearcall.tracking.aliases import CHAMPION, Change, champions_before, clean_reason, history, move_alias
from clearcall.tracking.gate import judge_values
from clearcall.tracking.registry import RETIRED, SAME_TEST, has_files
from clearcall.tracking.runs import client, origin, reachable, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

# Figures of a version, and what its run calls them: versions of earlier releases have fewer tags.
_FIGURES = {
    "ssim": "test_ssim",
    "psnr_db": "test_psnr_db",
    "ssim_over_unsharp": "gain_over_unsharp_ssim",
    "psnr_db_over_unsharp": "gain_over_unsharp_psnr_db",
    "fps": f"fps_{FULL_HD[1]}p",
    "parameters": "parameters",
    "macs": f"macs_{FULL_HD[1]}p",
}
_JUDGED = ("ssim", "fps", "ssim_over_unsharp", "psnr_db_over_unsharp")
SORT_KEYS = ("version", *_FIGURES, "when")
_RUNS_AT_ONCE = 100  # of one search
_NAMED = 20  # versions that a message names


@dataclass(frozen=True)
class Version:
    """A registered version with its figures on the test images, None where unknown; `when` is UTC, ISO 8601."""

    version: int
    aliases: list[str]
    run: str
    experiment: str
    ssim: float | None
    psnr_db: float | None
    ssim_over_unsharp: float | None
    psnr_db_over_unsharp: float | None
    fps: float | None
    parameters: float | None
    macs: float | None
    when: str
    by: str
    commit: str
    gate: str
    retired: str | None
    run_id: str
    tags: Mapping[str, str] = field(repr=False)

    def figures(self) -> dict[str, float]:
        """Return the figures that are known, by name."""
        return {name: value for name in _FIGURES if (value := getattr(self, name)) is not None}

    def same(self, other: "Version", *tags: str) -> bool:
        """Return whether both carry these tags with the same values."""
        return all(tag in self.tags and self.tags[tag] == other.tags.get(tag) for tag in tags)


@dataclass(frozen=True)
class Details:
    """A version with all that its run has, and the changes of aliases that it was part of, oldest first."""

    version: Version
    uri: str
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    history: list[Change]


@dataclass(frozen=True)
class Comparison:
    """Two versions: each metric, the params that differ, and what makes them hard to compare."""

    versions: tuple[int, int]
    metrics: dict[str, tuple[float | None, float | None]]
    params: dict[str, tuple[str | None, str | None]]
    notes: list[str]


def list_versions(name: str, sort: str = "version", *, ascending: bool = False) -> list[Version]:
    """Return all versions of a registered model, the newest or largest first, those without the figure last."""
    if sort not in SORT_KEYS:
        raise UserError(f"--sort {sort} is not known: give one of {', '.join(SORT_KEYS)}")
    with reachable():
        found = _Registry(name).versions
    known = [version for version in found if getattr(version, sort) is not None]
    known.sort(key=lambda version: (getattr(version, sort), version.version), reverse=not ascending)
    return [*known, *(version for version in found if getattr(version, sort) is None)]


def show_version(name: str, which: str) -> Details:
    """Return everything known of a version, given by its number or alias."""
    with reachable():
        registry = _Registry(name)
        version = registry.find(which)
        number, run = str(version.version), registry.runs.get(version.run_id)
        changes = [change for change in history(registry.model) if number in (change.before, change.after)]
    metrics, params = ({}, {}) if run is None else (run.data.metrics, run.data.params)
    return Details(version, f"models:/{name}/{number}", metrics, params, changes)


def compare_versions(name: str, one: str, other: str) -> Comparison:
    """Return the metrics of two versions and the params that differ: those of params.yaml, else those of the runs."""
    with reachable():
        registry = _Registry(name)
        pair = registry.find(one), registry.find(other)
        files = [_read_params(version.run_id) for version in pair]
    runs = [registry.runs.get(version.run_id) for version in pair]
    metrics, logged = [], []
    for version, run in zip(pair, runs, strict=True):
        of_run = {} if run is None else run.data.metrics
        of_model = {key: value for key, value in of_run.items() if not key.startswith("system/")}
        more = {key: value for key, value in of_model.items() if key not in _FIGURES.values()}
        metrics.append(version.figures() | more)
        logged.append({} if run is None else dict(run.data.params))
    params = logged if None in files else [found or {} for found in files]
    values = {key: (metrics[0].get(key), metrics[1].get(key)) for key in {**metrics[0], **metrics[1]}}
    differing = {key: (params[0].get(key), params[1].get(key)) for key in {**params[0], **params[1]}}
    notes = []
    if not pair[0].same(pair[1], *SAME_TEST):
        notes.append("measured on different test pairs: SSIM and PSNR cannot be compared")
    if not pair[0].same(pair[1], "machine_id"):
        notes.append("timed on different machines: fps and latency cannot be compared")
    return Comparison(
        (pair[0].version, pair[1].version),
        values,
        {key: differing[key] for key in sorted(differing) if differing[key][0] != differing[key][1]},
        notes,
    )


def promote_version(name: str, which: str, limits: Gate, reason: str = "", *, force: bool = False) -> str:
    """Make a version the champion and return a message; raise UserError, changing nothing, if it must not be.

    It must pass the gate's limits, and not have a lower SSIM than the champion on the same test pairs, timed on the
    same machine. `force`, which needs a reason, overrides the comparison with the champion and a retirement, but
    neither the limits nor missing files.
    """
    why = clean_reason(reason)
    if force and not why:
        raise UserError("--force needs a reason, which is recorded: add --reason TEXT")
    with reachable():
        registry = _Registry(name)
        version, champion = registry.find(which), registry.champion()
        if champion is not None and version.version == champion.version:
            return f"{name} version {version.version} is the champion already"
        _require_fit(registry, version, limits)
        objections = _objections(version, champion)
        if objections and not force:
            raise UserError(
                f"version {version.version} was not promoted: {'; '.join(objections)}. "
                "--force --reason TEXT promotes it all the same"
            )
        if objections:
            why += f" (forced: {'; '.join(objections)})"
        number = str(version.version)
        client().set_model_version_tag(name, number, "gate", "passed")
        if version.retired is not None:
            client().delete_model_version_tag(name, number, RETIRED)
        move_alias(name, CHAMPION, number, why or "clearcall models promote")
    instead = "" if champion is None else f" in place of version {champion.version}"
    return f"{name} version {number} is now the champion{instead}: models:/{name}@{CHAMPION}"


def roll_back(name: str, reason: str = "") -> str:
    """Make the champion before the present one champion again, and return a message.

    Versions that were retired or deleted, or whose files are missing, are passed over. Raises UserError if none is
    left.
    """
    why = clean_reason(reason)
    with reachable():
        registry = _Registry(name)
        present = registry.champion()
        if present is None:
            raise UserError(f"{name} has no champion to roll back from: {registry.there_is()}")
        before = champions_before(history(registry.model), str(present.version))
        chosen = next((number for number in before if registry.is_usable(number)), None)
        if chosen is None:
            told = f" but {', '.join(before)}, retired, deleted or without files" if before else ""
            raise UserError(
                f"no champion before version {present.version} is recorded{told}: "
                f"`clearcall models promote VERSION` names one; {registry.there_is()}"
            )
        move_alias(name, CHAMPION, chosen, why or "clearcall models rollback", "roll back")
    return f"{name} version {chosen} is the champion again in place of version {present.version}"


def retire_version(name: str, which: str, reason: str = "") -> str:
    """Tag a version as retired, remove its aliases, and return a message; raise UserError for the champion."""
    why = clean_reason(reason)
    with reachable():
        registry = _Registry(name)
        version, champion = registry.find(which), registry.champion()
        if champion is not None and version.version == champion.version:
            raise UserError(
                f"version {version.version} is the champion: promote another or run `clearcall models rollback` first"
            )
        number, label = str(version.version), f"{name} version {version.version}"
        if version.retired is None:
            by = origin().get("mlflow.user", "unknown")
            note = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} by {by}: {why or 'clearcall models retire'}"
            client().set_model_version_tag(name, number, RETIRED, note)
        elif not version.aliases:
            return f"{label} is retired already"
        for alias in version.aliases:
            move_alias(name, alias, None, why or "clearcall models retire", "remove")
    lost = f"; it was {', '.join(version.aliases)}" if version.aliases else ""
    return f"{label} is retired{lost}"


class _Registry:
    """A registered model with its versions, newest first, and their runs by id."""

    def __init__(self, name: str) -> None:
        self.name, self.model = name, _registered_model(name)
        found = sorted(client().search_model_versions(f"name='{name}'"), key=lambda version: -int(version.version))
        self._entities = {str(version.version): version for version in found}
        experiments = _experiments()
        self.runs = _runs_of((str(version.run_id) for version in found if version.run_id), list(experiments))
        self.versions = [self._describe(version, experiments) for version in found]

    def find(self, which: str) -> Version:
        """Return a version by its number or alias; raise UserError if there is none."""
        wanted = which.strip().removeprefix("@")
        number = str(self.model.aliases.get(wanted, wanted))
        if re.fullmatch(r"[0-9]{1,18}", number):
            for version in self.versions:
                if version.version == int(number):
                    return version
        raise UserError(f"{self.name} has no version or alias {which!r}: {self.there_is()}")

    def champion(self) -> Version | None:
        """Return the present champion, None if there is none."""
        return self.find(CHAMPION) if CHAMPION in self.model.aliases else None

    def has_files(self, version: Version) -> bool:
        """Return whether the ONNX file of a version exists."""
        return has_files(self._entities[str(version.version)])

    def is_usable(self, number: str) -> bool:
        """Return whether a version exists with its files and is not retired."""
        return number in self._entities and (one := self.find(number)).retired is None and self.has_files(one)

    def there_is(self) -> str:
        """Tell the versions and aliases that exist."""
        numbers = [str(version.version) for version in self.versions]
        more = ", ..." if len(numbers) > _NAMED else ""
        aliases = [f"{alias} ({number})" for alias, number in sorted(self.model.aliases.items())]
        return f"versions {', '.join(numbers[:_NAMED]) or 'none'}{more}; aliases {', '.join(aliases) or 'none'}"

    def _describe(self, version: "ModelVersion", experiments: Mapping[str, str]) -> Version:
        run, tags = self.runs.get(str(version.run_id)), dict(version.tags)
        of_run: dict[str, str] = {} if run is None else run.data.tags
        metrics = {} if run is None else run.data.metrics
        figures = {name: _number(tags.get(name, metrics.get(logged))) for name, logged in _FIGURES.items()}
        created = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
        return Version(
            version=int(version.version),
            aliases=sorted(name for name, number in self.model.aliases.items() if str(number) == str(version.version)),
            run="" if run is None else str(run.info.run_name),
            experiment="" if run is None else experiments[run.info.experiment_id],
            **figures,
            when=f"{created:%Y-%m-%dT%H:%M:%SZ}",
            by=tags.get("registered_by") or of_run.get("mlflow.user", ""),
            commit=of_run.get("mlflow.source.git.commit") or tags.get("commit", ""),
            gate=tags.get("gate", ""),
            retired=tags.get(RETIRED),
            run_id=str(version.run_id or ""),
            tags=tags,
        )


def _registered_model(name: str) -> "RegisteredModel":
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        return client().get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    names = [model.name for model in client().search_registered_models(max_results=_NAMED)]
    raise UserError(
        f"there is no registered model {name!r} in MLflow at {redact(tracking_uri())}, which has "
        f"{', '.join(names) or 'none'}: `dvc repro` registers one, --model names another"
    )


def _experiments() -> dict[str, str]:
    """Return the names of all experiments by id, those of deleted ones too."""
    from mlflow.entities import ViewType  # noqa: PLC0415

    found, token = dict[str, str](), None
    while True:
        page = client().search_experiments(view_type=ViewType.ALL, page_token=token)
        found |= {str(one.experiment_id): str(one.name) for one in page}
        if not (token := page.token):
            return found


def _runs_of(run_ids: Iterable[str], experiments: list[str]) -> "dict[str, Run]":
    """Return runs by id, deleted ones too, in few requests."""
    from mlflow.entities import ViewType  # noqa: PLC0415

    wanted, found = sorted(set(run_ids)), dict[str, "Run"]()
    for start in range(0, len(wanted), _RUNS_AT_ONCE):
        some = ", ".join(f"'{one}'" for one in wanted[start : start + _RUNS_AT_ONCE])
        where = f"attributes.run_id IN ({some})"
        for run in client().search_runs(experiments, where, ViewType.ALL, max_results=_RUNS_AT_ONCE):
            found[str(run.info.run_id)] = run
    return found


def _require_fit(registry: _Registry, version: Version, limits: Gate) -> None:
    """Raise UserError unless a version has its files and figures, and passes the gate's limits."""
    label, publish = f"version {version.version}", f"`dvc repro -f -s publish` at its commit {version.commit[:7]}"
    if not registry.has_files(version):
        raise UserError(f"the files of {label} are missing: run {publish.rstrip()}")
    figures = {name: value for name, value in version.figures().items() if name in _JUDGED}
    if lacking := [name for name in _JUDGED if name not in figures]:
        raise UserError(f"{label} lacks {', '.join(lacking)}, which the gate judges: run {publish.rstrip()}")
    size, wanted = version.tags.get("fps_size"), "x".join(map(str, FULL_HD))
    if size != wanted:
        raise UserError(
            f"the fps of {label} was measured at {size or 'an unknown size'}, and the gate asks for {wanted}: "
            f"with benchmark_fps.width and height set, run {publish.rstrip()}"
        )
    if failed := [check for check in judge_values(limits, **figures) if not check.passed]:
        values = ", ".join(f"{check.name} {check.value:.6g} (at least {check.limit:g})" for check in failed)
        raise UserError(f"{label} does not pass the gate: {values}. The limits are in params.yaml under gate")


def _objections(version: Version, champion: Version | None) -> list[str]:
    """Return what speaks against a version beside the champion."""
    found = [] if version.retired is None else [f"it was retired {version.retired}"]
    if champion is None:
        return found
    than = f"the champion, version {champion.version}"
    if not version.same(champion, *SAME_TEST):
        found.append(
            f"it was measured on other test pairs than {than}: run `dvc repro` with the champion's download_data and "
            f"degrade_pairs (`clearcall models diff {champion.version} {version.version}` shows them)"
        )
    elif not (version.ssim or 0) >= (champion.ssim or 0):
        found.append(f"its SSIM {version.ssim:.4f} is below {champion.ssim:.4f} of {than}")
    if not version.same(champion, "machine_id"):
        machines = [one.tags.get("machine", "an unknown machine") for one in (version, champion)]
        found.append(
            f"it was timed on another machine ({machines[0]}) than {than} ({machines[1]}): on one machine, run "
            f"`dvc repro -f -s benchmark_fps && dvc repro` at the commits of both"
        )
    return found


def _read_params(run_id: str) -> dict[str, str] | None:
    """Return the params.yaml that was published with a run, flattened to dotted names; None if there is none."""
    path = "report/params.yaml"
    if not run_id or path not in {file.path for file in client().list_artifacts(run_id, "report")}:
        return None
    with tempfile.TemporaryDirectory() as temporary:
        text = Path(client().download_artifacts(run_id, path, temporary)).read_text(encoding="utf-8")
    return dict(_flattened("", yaml.safe_load(text)))


def _flattened(prefix: str, value: Any) -> list[tuple[str, str]]:  # noqa: ANN401  # whatever YAML holds
    if not isinstance(value, dict):
        return [(prefix, str(value))]
    return [pair for key, inner in value.items() for pair in _flattened(f"{prefix}.{key}".lstrip("."), inner)]


def _number(value: str | float | None) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:  # a tag that was edited by hand
        return None
