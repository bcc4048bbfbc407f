"""The model registry: attach a pipeline's results to its MLflow runs, register the ONNX model, move the aliases."""

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clearcall.core.console import warn
from clearcall.core.errors import UserError, redact
from clearcall.core.files import read_csv, read_json, sha256_of
from clearcall.evaluation.results import timed_as
from clearcall.params import Params
from clearcall.tracking.aliases import CANDIDATE, CHAMPION, move_alias
from clearcall.tracking.runs import (
    client,
    experiment_id,
    known_run,
    log_images,
    log_params,
    log_rows,
    origin,
    server_errors,
    tracking_uri,
    unreachable,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

# Results of the pipeline, beside which others' may lie.
_REPORTED = {
    *("params", "download_data", "check_data", "degrade_pairs", "check_pairs", "train_teacher", "distill_student"),
    *("evaluate", "export_onnx", "benchmark_fps", "report"),
}
# Two versions may be compared if these are the same: the photographs of the test split, and how they were degraded.
SAME_TEST = ("test_manifest_sha256", "test_pairs_sha256")
RETIRED = "retired"  # tag of a version that is not to be used any more
_OF_THE_COMMIT = ("params.yaml", "dvc.yaml", "stages", "src")


@dataclass(frozen=True)
class Published:
    """Where the registered model is."""

    model: str
    version: str
    run_id: str
    onnx_sha256: str


def publish(params: Params) -> Published:
    """Log what was measured to the runs of the trained networks, register the student, set the alias `candidate`.

    The alias is set as `publish.candidate` says; if it is not, a line tells why. Runs that the server does not know
    (trained in another clone, or while the server was down) get a stand-in, tagged with their origin. An ONNX file is
    registered once. Raises UserError if the server cannot be used.
    """
    reports = params.paths.reports
    for path in (reports / "report.md", reports / "evaluate.csv", params.paths.models / "student.onnx"):
        if not path.is_file():
            raise UserError(f"{path} is missing: run `dvc repro` first")
    errors = server_errors()
    try:
        return _publish(params)
    except errors as error:
        raise unreachable(error) from None


def _publish(params: Params) -> Published:
    paths, experiment = params.paths, experiment_id(params.publish.experiment)
    reports = {path.stem: read_json(path) for path in paths.reports.glob("*.json")}
    trained = {"teacher": reports["train_teacher"], **reports["distill_student"]}
    run_ids = read_json(paths.runs / "train_teacher.json") | read_json(paths.runs / "distill_student.json")
    mean, speed = reports["evaluate"]["mean"], reports["benchmark_fps"]
    runs = {}
    for name, stored in run_ids.items():
        stage = "train_teacher" if name == "teacher" else "distill_student"
        rows = _read_curve(paths.reports / f"{stage}_curve.csv", name)
        runs[name] = run_id = _complete_run(stored, rows) or _stand_in(experiment, name, stored, trained[name], rows)
        metrics = {f"test_{metric}": value for metric, value in mean[name].items()}
        for contender in ("degraded", "unsharp"):
            for metric in ("ssim", "psnr_db"):
                metrics[f"{contender}_{metric}"] = mean[contender][metric]
                metrics[f"gain_over_{contender}_{metric}"] = mean[name][metric] - mean[contender][metric]
        latency, height = speed["latency"][timed_as(name)], speed["height"]
        metrics |= {f"fps_{height}p": latency["fps"], "latency_ms": latency["median_ms"]}
        if timed_as(name) == "student" and speed["student_macs"] is not None:
            metrics[f"macs_{height}p"] = speed["student_macs"]
        log_rows(run_id, [{"step": 0, "parameters": trained[name]["parameters"], **metrics}])
        test = {key: reports["evaluate"][key] for key in SAME_TEST}
        log_images(run_id, "test images", test, "testing", {"pairs": reports["evaluate"]["pairs"]})
        weights = paths.weights / ("teacher" if name == "teacher" else f"students/{name}")
        client().log_artifacts(run_id, str(weights), "weights")

    run_id, onnx = runs["student"], paths.models / "student.onnx"
    for path in sorted([*paths.reports.glob("*.*"), Path("params.yaml")]):
        if (stage := path.stem.removesuffix("_curve")) in _REPORTED:
            client().log_artifact(runs["teacher"] if stage == "train_teacher" else run_id, str(path), "report")
    client().log_artifacts(run_id, str(paths.reports / "figures"), "report/figures")

    name, sha256 = params.publish.model_name, reports["export_onnx"]["student"]["sha256"]
    version = _registered(name, sha256)
    if version is None:
        _log_model(run_id, onnx)
        version = _register(name, run_id, sha256)
    elif not has_files(registered := client().get_model_version(name, version)):
        _log_model(registered.run_id or run_id, onnx)
    tags = {
        "ssim": f"{mean['student']['ssim']:.6f}",
        "psnr_db": f"{mean['student']['psnr_db']:.4f}",
        **{
            f"{metric}_over_unsharp": str(round(mean["student"][metric] - mean["unsharp"][metric], 9))
            for metric in ("ssim", "psnr_db")
        },
        "fps": str(speed["latency"]["student"]["fps"]),
        "fps_size": f"{speed['width']}x{speed['height']}",
        "machine": speed["machine"]["cpu"],
        "machine_id": speed["machine"]["id"],
        **{key: reports["evaluate"][key] for key in SAME_TEST},
    }
    for key, value in tags.items():
        client().set_model_version_tag(name, version, key, value)
    _make_candidate(params, version)
    return Published(name, version, run_id, sha256)


def _make_candidate(params: Params, version: str) -> None:
    """Set the alias `candidate`, or tell why it was not set."""
    name = params.publish.model_name
    retired = RETIRED in client().get_model_version(name, version).tags
    if (why_not := "the version is retired" if retired else no_candidate(params.publish.candidate)) is None:
        move_alias(name, CANDIDATE, version, "published")
    else:
        print(f"{name} version {version} is registered, but not as {CANDIDATE}: {why_not}")


def no_candidate(rule: Literal["main", "always", "never"]) -> str | None:
    """Return why a run in the current folder must not set the alias `candidate`, None if it may.

    By the rule `main` it is no DVC experiment, and code and params are those of the last commit.
    """
    if rule != "main":
        return None if rule == "always" else "publish.candidate is `never`"
    publish = "commit, then `dvc repro -f -s publish`"
    if experiment := os.environ.get("DVC_EXP_NAME"):
        return f"this is a DVC experiment: `dvc exp apply {experiment}`, {publish}"
    command = ["git", "status", "--porcelain", "--untracked-files=all", "--", *_OF_THE_COMMIT]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError:
        return "git is not installed, so that the commit is unknown"
    if done.returncode:
        return "this folder is not in a git repository, so that the commit is unknown"
    if changed := [line[3:] for line in done.stdout.splitlines()]:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""  # noqa: PLR2004
        return f"{', '.join(changed[:3])}{more} changed since the last commit: {publish}"
    return None


def register_adapted(
    params: Params, onnx: Path, page: Path, values: Mapping[str, str], curves: Mapping[str, list[dict[str, float]]]
) -> str:
    """Log an adapted network to a run of its own and register it, tagged with `values`; return what was done.

    It becomes a version of `<model name>-adapted`: who adapts for a room or a codec must not replace the model of all.
    Where the server cannot be used it warns: the file is there all the same.
    """
    name, errors = f"{params.publish.model_name}-adapted", server_errors()
    try:
        sha256 = sha256_of(onnx)
        if (version := _registered(name, sha256)) is None:
            experiment = experiment_id(params.publish.experiment)
            run_id = str(client().create_run(experiment, run_name=f"adapt {onnx.stem}", tags=origin()).info.run_id)
            log_params(run_id, values)
            for expert, rows in curves.items():
                named = [
                    {key if key == "step" else f"{expert}/{key}": value for key, value in row.items()} for row in rows
                ]
                log_rows(run_id, named)
            for file in (page, page.with_suffix(".png")):
                client().log_artifact(run_id, str(file), "report")
            _log_model(run_id, onnx)
            version = _register(name, run_id, sha256)
            client().set_terminated(run_id)
            for key, value in values.items():
                client().set_model_version_tag(name, version, key, value)
    except errors as error:
        warn(str(unreachable(error)))
        return f"{name} was not registered"
    return f"registered: models:/{name}/{version}"


def mark_failed(name: str, onnx_sha256: str) -> None:
    """Tag a registered model that has not passed the gate; warn if the registry cannot be used."""
    errors = server_errors()
    try:
        if (version := _registered(name, onnx_sha256)) is not None:
            client().set_model_version_tag(name, version, "gate", "failed")
    except errors as error:
        warn(str(unreachable(error)))


def promote(name: str, onnx_sha256: str, *, replace: bool) -> str:
    """Tag a model that passed the gate, promote it if it beats the champion, and return a message.

    It takes the alias if there is no champion, or if its SSIM is higher on the same test images. A champion that was
    measured on other images cannot be compared: `replace` puts this model in its place. Raises UserError if the
    registry cannot be used, the two cannot be compared, or the champion's files are missing.
    """
    errors = server_errors()
    try:
        return _promote(name, onnx_sha256, replace=replace)
    except errors as error:
        raise UserError(f"the gate is passed, but the alias {CHAMPION!r} was not set: {unreachable(error)}") from None


def _promote(name: str, onnx_sha256: str, *, replace: bool) -> str:
    version = _registered(name, onnx_sha256)
    if version is None or not _is_complete(challenger := client().get_model_version(name, version)):
        raise UserError(
            f"this model is not in the registry of {redact(tracking_uri())}. Run `dvc repro -f -s publish`, then "
            "`clearcall gate` again; or `clearcall gate --no-registry` for the limits alone"
        )
    client().set_model_version_tag(name, version, "gate", "passed")
    label = f"{name} version {version}"
    if RETIRED in challenger.tags:
        raise UserError(
            f"{label} is retired: `clearcall models promote {version} --force --reason TEXT` makes it the champion"
        )
    aliases = client().get_registered_model(name).aliases
    if CHAMPION in aliases and str(aliases[CHAMPION]) == version:
        return f"{label} is the champion already"
    if CHAMPION in aliases and not replace:
        champion = client().get_model_version(name, str(aliases[CHAMPION]))
        instead = "`clearcall gate --replace-champion` puts this one in its place"
        if any(champion.tags.get(key) != challenger.tags.get(key) for key in SAME_TEST):
            raise UserError(
                f"the champion, version {champion.version}, was measured on other test images, so that the two "
                f"cannot be compared. {instead}"
            )
        if not has_files(champion):
            raise UserError(f"the files of the champion, version {champion.version}, are not there. {instead}")
        if float(challenger.tags["ssim"]) <= float(champion.tags["ssim"]):
            return (
                f"the champion stays version {champion.version}: SSIM {float(champion.tags['ssim']):.4f} against "
                f"{float(challenger.tags['ssim']):.4f}"
            )
    move_alias(name, CHAMPION, version, f"clearcall gate{' --replace-champion' * replace}")
    return f"{label} is now the champion: models:/{name}@{CHAMPION}"


def _read_curve(path: Path, name: str) -> list[dict[str, float]]:
    rows = [row for row in read_csv(path) if row.pop("network") == name]
    return [{key: float(value) for key, value in row.items() if value} for row in rows]


def _complete_run(run_id: str | None, rows: list[dict[str, float]]) -> str | None:
    """Return the run if the server knows it; send what it missed if the server was away while it trained."""
    if run_id is None or (run := known_run(run_id)) is None:
        return None
    if run.info.status != "FINISHED":
        last = max((metric.step for metric in client().get_metric_history(run_id, "loss_total")), default=0)
        log_rows(run_id, [row for row in rows if row["step"] > last])
        client().set_terminated(run_id)
    return run_id


def _stand_in(
    experiment: str, name: str, stored: str | None, summary: dict[str, Any], rows: list[dict[str, float]]
) -> str:
    """Return a run that holds the curve of a network trained elsewhere or unlogged, made once."""
    curve = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
    trained_in = stored or f"trained while the server was away, curve {curve}"
    where = f"tags.`clearcall.origin_run` = '{trained_in}' and attributes.run_name = '{name}'"
    if found := client().search_runs([experiment], where, max_results=1):
        return str(found[0].info.run_id)
    tags = {"clearcall.stand_in": "true", "clearcall.origin_run": trained_in, "clearcall.network": name}
    run_id = str(client().create_run(experiment, run_name=name, tags=tags).info.run_id)
    log_params(run_id, {key: summary[key] for key in ("model", "losses", "parameters", "steps", "precision")})
    log_rows(run_id, rows)
    client().set_terminated(run_id)
    return run_id


def _registered(name: str, onnx_sha256: str) -> str | None:
    """Return the version that holds a certain ONNX file, if there is one."""
    found = client().search_model_versions(f"name='{name}'")
    versions = [int(version.version) for version in found if version.tags.get("onnx_sha256") == onnx_sha256]
    return str(max(versions)) if versions else None


def _is_complete(version: "ModelVersion") -> bool:
    """Return whether a version was published to the end, and its files exist."""
    return all(key in version.tags for key in ("ssim", *SAME_TEST)) and has_files(version)


def has_files(version: "ModelVersion") -> bool:
    """Return whether the ONNX file of a registered version exists: its folder may have been deleted."""
    import mlflow  # noqa: PLC0415

    uri = client().get_model_version_download_uri(version.name, version.version)
    return any(file.path.endswith(".onnx") for file in mlflow.artifacts.list_artifacts(artifact_uri=uri))


def _log_model(run_id: str, onnx_path: Path) -> None:
    """Attach an ONNX model to a run, as MLflow stores one."""
    import mlflow.onnx  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    import onnx  # noqa: PLC0415
    import onnxruntime  # noqa: PLC0415
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types import ColSpec, Schema, TensorSpec  # noqa: PLC0415

    model = onnx.load(onnx_path)

    def schema(values: Iterable[onnx.ValueInfoProto]) -> Schema:
        specs: list[ColSpec | TensorSpec] = []
        for value in values:
            shape = [int(size.dim_value) or -1 for size in value.type.tensor_type.shape.dim]
            specs.append(TensorSpec(np.dtype(np.uint8), shape, value.name))
        return Schema(specs)

    signature = ModelSignature(schema(model.graph.input), schema(model.graph.output))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        mlflow.onnx.save_model(
            model,
            folder,
            signature=signature,
            pip_requirements=[f"onnxruntime=={onnxruntime.__version__}", f"numpy=={np.__version__}"],
            save_as_external_data=False,
        )
        client().log_artifacts(run_id, str(folder), "model")


def _register(name: str, run_id: str, sha256: str) -> str:
    """Register the model that is attached to a run, and return its version."""
    if not client().search_registered_models(f"name='{name}'"):
        client().create_registered_model(name, description="Sharpens video-call frames; trained by `dvc repro`.")
    source = f"{client().get_run(run_id).info.artifact_uri}/model"
    # The tags at once: a version without them would be registered a second time.
    tags, here = {"onnx_sha256": sha256, "gate": "not judged"}, origin()
    for key, known in {"registered_by": "mlflow.user", "commit": "mlflow.source.git.commit"}.items():
        if known in here:
            tags[key] = here[known]
    return str(client().create_model_version(name, source, run_id, tags=tags).version)
