"""The registry against a real MLflow on a database of its own."""

import contextlib
import hashlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.make.projects import inside

from clearcall.core.errors import UserError
from clearcall.core.files import read_json, write_json
from clearcall.params import Params
from clearcall.runtime.sharpener import Sharpener
from clearcall.tracking import runs as tracking
from clearcall.tracking.models import promote_version, retire_version, show_version
from clearcall.tracking.registry import Published, promote, publish, register_adapted

if TYPE_CHECKING:
    from torch import nn

EXPERIMENT, MODEL = "clearcall", "clearcall"
CURVE = "network,step,learning_rate,loss_l1,validation_ssim\n{0},20,0.001,0.5,\n{0},20,,,0.9\n{0},40,0.002,0.25,\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Path]:
    """A project's top folder with its own MLflow database, and the current folder."""
    top = tmp_path_factory.mktemp("home")
    shutil.copy(empty_database, top)
    with inside(top, DVC_ROOT=str(top)):
        yield top


@pytest.fixture(scope="module")
def params(home: Path, committed: Params) -> Params:
    folders = {name: home / name for name in type(committed.paths).model_fields}
    published = committed.publish.model_copy(update={"candidate": "always"})
    return committed.model_copy(update={"paths": committed.paths.model_copy(update=folders), "publish": published})


@pytest.fixture(scope="module")
def known_run(home: Path) -> str:
    """The run that training left for the student."""
    rows = [{"step": 20.0, "loss_l1": 0.5}, {"step": 20.0, "validation_ssim": 0.8}, {"step": 40.0, "loss_l1": 0.25}]
    state_file = home / "student.json"
    values = {"channels": 4, "steps": 40, "pairs_sha256": "q" * 64}
    run = tracking.TrainingRun(EXPERIMENT, "student", values, state_file)

    def interrupted() -> None:
        with run:
            run.log(rows[:2])
            run.show(np.zeros((4, 12, 3), np.uint8), 20)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert run.run_id is not None
    assert tracking.client().get_run(run.run_id).info.status == "KILLED"
    assert read_json(state_file) == {"run_id": run.run_id, "sent": 2}
    with tracking.TrainingRun(EXPERIMENT, "student", values, state_file) as resumed:
        resumed.log(rows)
        resumed.log(rows)
    assert resumed.run_id == run.run_id
    return run.run_id


@pytest.fixture(scope="module")
def results(params: Params, known_run: str, student_onnx: "tuple[nn.Module, Path]") -> Callable[..., Params]:
    """Write what a pipeline leaves behind, with a certain quality, as if the ONNX file were a certain one."""
    paths = params.paths

    def write(*, ssim: float, onnx: str, manifest: str = "m" * 64, pairs: str = "p" * 64) -> Params:
        networks = [paths.weights / name for name in ("teacher", "students/student", "students/baseline")]
        for folder in (paths.models, paths.reports / "figures", *networks):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in networks:
            (folder / "model.safetensors").write_bytes(b"weights")
        (paths.models / "student.onnx").write_bytes(student_onnx[1].read_bytes())
        (paths.reports / "figures" / "curve.png").write_bytes(b"png")
        (paths.reports / "report.md").write_text("# Report\n", encoding="utf-8")
        (paths.reports / "evaluate.csv").write_text("image\n", encoding="utf-8")
        Path("params.yaml").write_text("x: 1\n", encoding="utf-8")
        for stage, name in {"train_teacher": "teacher", "distill_student": "baseline"}.items():
            (paths.reports / f"{stage}_curve.csv").write_text(CURVE.format(name), encoding="utf-8")
        summary = {"model": {"name": "x"}, "losses": {"l1": 1}, "parameters": 3, "steps": 40, "precision": "32-true"}
        write_json(paths.reports / "train_teacher.json", summary)
        write_json(paths.reports / "distill_student.json", {"student": summary, "baseline": summary})
        write_json(paths.runs / "train_teacher.json", {"teacher": "f" * 32})
        write_json(paths.runs / "distill_student.json", {"student": known_run, "baseline": None})
        figures = {"ssim": ssim, "psnr_db": 30.123456, "mse": 12.5}
        write_json(
            paths.reports / "evaluate.json",
            {
                "test_manifest_sha256": manifest,
                "test_pairs_sha256": pairs,
                "mean": {
                    **dict.fromkeys(("student", "baseline", "teacher"), figures),
                    **{name: {"ssim": 0.5, "psnr_db": 28.0} for name in ("degraded", "unsharp")},
                },
                "pairs": 18,
            },
        )
        latency = {"fps": 65.5, "median_ms": 15.27}
        write_json(
            paths.reports / "benchmark_fps.json",
            {
                "width": 1920,
                "height": 1080,
                "latency": {"student": latency, "teacher": {"fps": 0.5, "median_ms": 2000.0}, "unsharp": latency},
                "student_macs": 7e9,
                "machine": {"cpu": "Abacus 9000", "id": "0" * 16},
            },
        )
        write_json(paths.reports / "export_onnx.json", {"student": {"sha256": sha(onnx)}})
        return params

    return write


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


@pytest.fixture(scope="module")
def first(results: Callable[..., Params]) -> Published:
    """The first model of an empty registry."""
    return publish(results(ssim=0.93, onnx="one"))


def promote_one(published: Published, *, replace: bool = False) -> str:
    return promote(published.model, published.onnx_sha256, replace=replace)


def aliases() -> dict[str, str]:
    return {name: str(version) for name, version in tracking.client().get_registered_model(MODEL).aliases.items()}


def tags(version: str) -> dict[str, str]:
    found: dict[str, str] = tracking.client().get_model_version(MODEL, version).tags
    return found


def runs(name: str) -> list[Any]:
    client = tracking.client()
    (experiment,) = client.search_experiments(filter_string=f"name = '{EXPERIMENT}'")
    return list(client.search_runs([experiment.experiment_id], f"tags.`clearcall.network` = '{name}'"))


def history(run_id: str, metric: str) -> list[tuple[int, float]]:
    return [(entry.step, entry.value) for entry in tracking.client().get_metric_history(run_id, metric)]


def test_a_resumed_training_is_one_run_with_each_row_once(known_run: str) -> None:
    run = tracking.client().get_run(known_run)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"channels": "4", "steps": "40", "pairs_sha256": "q" * 64}
    assert history(known_run, "loss_l1") == [(20, 0.5), (40, 0.25)]
    assert history(known_run, "validation_ssim") == [(20, 0.8)]
    images = [file.path for file in tracking.client().list_artifacts(known_run, "images")]
    assert images and all(re.match(r"images/validation\Wstep\W20\W", path) for path in images)


def test_an_error_in_training_marks_the_run_as_failed(home: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        tracking.TrainingRun(EXPERIMENT, "failing", {}, home / "failing.json"),
    ):
        raise ZeroDivisionError
    assert [run.info.status for run in runs("failing")] == ["FAILED"]


def test_the_first_model_becomes_the_candidate_and_no_champion(first: Published, known_run: str) -> None:
    assert first == Published(MODEL, "1", known_run, sha("one"))
    assert aliases() == {"candidate": "1"}
    found = tags("1")
    assert found.pop("registered_by") == tracking.origin()["mlflow.user"]
    found.pop("commit", None)  # where the tests run inside a repository
    assert found == {
        "onnx_sha256": sha("one"),
        "ssim": "0.930000",
        "psnr_db": "30.1235",
        "ssim_over_unsharp": "0.43",
        "psnr_db_over_unsharp": "2.123456",
        "fps": "65.5",
        "fps_size": "1920x1080",
        "machine": "Abacus 9000",
        "machine_id": "0" * 16,
        "test_manifest_sha256": "m" * 64,
        "test_pairs_sha256": "p" * 64,
        "gate": "not judged",
    }


def test_figures_and_files_are_attached_to_the_run_that_trained(first: Published, known_run: str) -> None:
    run = tracking.client().get_run(known_run)
    metrics = run.data.metrics
    assert metrics["test_ssim"] == 0.93
    assert metrics["gain_over_unsharp_psnr_db"] == pytest.approx(2.123456)
    assert metrics["gain_over_degraded_ssim"] == pytest.approx(0.43)
    assert metrics["unsharp_psnr_db"] == 28.0
    assert metrics["macs_1080p"] == 7e9
    assert metrics["parameters"] == 3
    assert metrics["test_mse"] == 12.5
    assert metrics["fps_1080p"] == 65.5
    assert metrics["latency_ms"] == 15.27
    attached = {file.path for file in tracking.client().list_artifacts(first.run_id, "report")}
    files = {
        "report.md",
        "evaluate.csv",
        "params.yaml",
        "figures",
        "distill_student_curve.csv",
    }
    stages = ("distill_student", "evaluate", "export_onnx", "benchmark_fps")
    assert attached == {f"report/{name}" for name in files | {f"{stage}.json" for stage in stages}}
    weights = {file.path for file in tracking.client().list_artifacts(first.run_id, "weights")}
    assert weights == {"weights/model.safetensors"}


def test_a_run_tells_its_test_images_and_where_it_comes_from(first: Published, known_run: str) -> None:
    run = tracking.client().get_run(known_run)
    assert run.inputs is not None
    learned, images = sorted(run.inputs.dataset_inputs, key=lambda one: one.tags[0].value, reverse=True)
    assert [tag.value for one in (learned, images) for tag in one.tags] == ["training", "testing"]
    assert json.loads(str(learned.dataset.source)) == {"pairs_sha256": "q" * 64}
    assert (images.dataset.name, json.loads(images.dataset.profile or "")) == ("test images", {"pairs": 18})
    assert json.loads(str(images.dataset.source))["test_pairs_sha256"] == "p" * 64
    assert run.data.tags["clearcall.network"] == "student"
    assert {"mlflow.user", "mlflow.source.name"} <= run.data.tags.keys()
    experiment = tracking.client().get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        (
            {"mlflow.source.git.commit": "0123456789abcdef", "clearcall.dvc_experiment": "tidy-moth"},
            "student tidy-moth",
        ),
        ({"mlflow.source.git.commit": "0123456789abcdef"}, "student 0123456"),
        ({}, "student"),
    ],
)
def test_a_run_is_named_after_its_network_and_its_experiment_or_commit(tags: dict[str, str], name: str) -> None:
    assert tracking.named_after("student", tags) == name


def test_artifacts_of_the_local_database_lie_beside_it(first: Published, home: Path) -> None:
    uri = tracking.client().get_run(first.run_id).info.artifact_uri
    assert uri.startswith((home / "mlartifacts" / EXPERIMENT).as_uri())
    assert (home / "mlflow.db").is_file()


@pytest.mark.parametrize(("name", "origin"), [("teacher", "f" * 32), ("baseline", "trained while the server was away")])
def test_an_unknown_run_gets_a_stand_in_with_its_curve(first: Published, name: str, origin: str) -> None:
    assert first.version == "1"
    (stand_in,) = runs(name)
    assert stand_in.data.tags["clearcall.stand_in"] == "true"
    assert stand_in.data.tags["clearcall.origin_run"].startswith(origin)
    assert stand_in.data.params["precision"] == "32-true"
    assert stand_in.info.status == "FINISHED"
    run_id = stand_in.info.run_id
    assert history(run_id, "loss_l1") == [(20, 0.5), (40, 0.25)]
    assert history(run_id, "validation_ssim") == [(20, 0.9)]
    assert history(run_id, "test_ssim") == [(0, 0.93)]
    # The baseline is the student's network.
    assert history(run_id, "fps_1080p") == [(0, 0.5 if name == "teacher" else 65.5)]
    assert history(run_id, "macs_1080p") == ([] if name == "teacher" else [(0, 7e9)])
    attached = {file.path for file in tracking.client().list_artifacts(run_id, "report")}
    own = {"report/train_teacher.json", "report/train_teacher_curve.csv"}
    assert attached == (own if name == "teacher" else set())


def test_the_registered_model_runs(first: Published, student_onnx: "tuple[nn.Module, Path]") -> None:
    import mlflow.onnx
    import mlflow.pyfunc
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    uri = f"models:/{first.model}@candidate"
    proto = mlflow.onnx.load_model(uri)
    luma = np.random.default_rng(0).integers(0, 256, (1, 1, 18, 32), np.uint8)
    expected = onnxruntime.InferenceSession(str(student_onnx[1]), providers=providers).run(None, {"luma": luma})[0]
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=providers)
    assert (session.run(None, {"luma": luma})[0] == expected).all()
    assert (expected != 128).any()  # it does something
    # MLflow's own wrapper checks the input against the signature: any height and width, 8 bits.
    model = mlflow.pyfunc.load_model(uri)
    assert (model.predict({"luma": luma})["sub_pixels"] == expected).all()
    with pytest.raises(mlflow.exceptions.MlflowException, match="uint8"):
        model.predict({"luma": luma.astype(np.float32)})


@pytest.mark.parametrize("uri", ["models:/{model}@candidate", "models:/{model}/{version}", "runs:/{run_id}/model"])
def test_the_sharpener_takes_a_registered_model_by_its_uri(
    first: Published, student_onnx: "tuple[nn.Module, Path]", uri: str
) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (17, 31, 3), np.uint8)
    expected = Sharpener(student_onnx[1], "onnxruntime", threads=1)(frame)
    registered = Sharpener(tracking.download_model(uri.format(**asdict(first))), "onnxruntime", threads=1)
    assert (registered(frame) == expected).all()
    assert (expected != frame).any()


@pytest.mark.parametrize(
    ("uri", "missing"),
    [
        (f"models:/{MODEL}@nobody", "nobody"),
        (f"models:/{MODEL}/999", "999"),
        ("models:/stranger/1", "stranger"),
        (f"runs:/{'0' * 32}/model", "0" * 32),
    ],
)
def test_a_uri_that_leads_nowhere_is_the_users_to_mend(first: Published, uri: str, missing: str) -> None:
    assert first.model == MODEL
    with pytest.raises(UserError) as caught:
        tracking.download_model(uri)
    assert missing in str(caught.value)


def test_a_uri_without_an_onnx_file_is_the_users_to_mend(first: Published) -> None:
    with pytest.raises(UserError, match="holds 0 ONNX files, not one: it is no model that clearcall registered"):
        tracking.download_model(f"runs:/{first.run_id}/report")


def test_the_same_file_is_registered_once(first: Published, results: Callable[..., Params]) -> None:
    again = publish(results(ssim=0.93, onnx="one"))
    assert again == first
    assert len(tracking.client().search_model_versions(f"name='{MODEL}'")) == 1


def test_publishing_again_makes_no_second_stand_in(first: Published, results: Callable[..., Params]) -> None:
    """Every edit of the report publishes again; the unknown run's stand-in is known by its origin."""
    publish(results(ssim=0.93, onnx="one"))
    assert first.version == "1"
    assert len(runs("teacher")) == 1


def test_champions_follow_one_another(first: Published, results: Callable[..., Params]) -> None:
    """One story, in order: each model's SSIM against that of the champion before it."""
    assert "champion" not in aliases()
    assert "is now the champion" in promote_one(first)
    assert aliases()["champion"] == "1"
    assert tags("1")["gate"] == "passed"
    assert "is the champion already" in promote_one(first)

    worse = publish(results(ssim=0.929, onnx="two"))
    assert worse.version == "2"
    assert aliases() == {"candidate": "2", "champion": "1"}
    assert "the champion stays version 1: SSIM 0.9300 against 0.9290" in promote_one(worse)
    assert tags("2")["gate"] == "passed"
    equal = publish(results(ssim=0.93, onnx="three"))
    assert "stays version 1" in promote_one(equal)
    assert aliases()["champion"] == "1"

    better = publish(results(ssim=0.931, onnx="four"))
    assert f"version {better.version} is now the champion" in promote_one(better)
    assert aliases() == {"candidate": better.version, "champion": better.version}

    elsewhere = publish(results(ssim=0.99, onnx="five", manifest="n" * 64))
    with pytest.raises(UserError, match=r"other test images.*`clearcall gate --replace-champion`"):
        promote_one(elsewhere)
    assert aliases()["champion"] == better.version
    assert "is now the champion" in promote_one(elsewhere, replace=True)
    assert aliases()["champion"] == elsewhere.version

    assert publish(results(ssim=0.93, onnx="one")) == first  # an old file is found again among many
    assert aliases()["candidate"] == "1"


def test_a_version_whose_files_are_gone_is_no_champion_until_they_are_published_again(
    first: Published, results: Callable[..., Params], home: Path
) -> None:
    """Also the copy of a database alone: what it registers lies in the folder of the original."""
    assert promote_one(first, replace=True)
    files = home / "mlartifacts" / EXPERIMENT / first.run_id / "artifacts" / "model"
    shutil.rmtree(files)
    with pytest.raises(UserError, match=r"not in the registry of .* Run `dvc repro -f -s publish`"):
        promote_one(first)
    with pytest.raises(UserError, match="`dvc repro -f -s publish`"):
        tracking.download_model(f"models:/{MODEL}@champion")
    better = publish(results(ssim=0.92, onnx="six"))
    shutil.rmtree(files)  # the same run's
    assert publish(results(ssim=0.92, onnx="six")) == better
    assert tracking.download_model(f"models:/{MODEL}@champion")
    assert "the champion stays" in promote_one(better)


def test_a_version_that_was_registered_but_not_measured_is_no_champion(
    first: Published, results: Callable[..., Params]
) -> None:
    """Publishing was killed after the version was made, before its tags."""
    killed = publish(results(ssim=0.99, onnx="seven"))
    for key in ("ssim", "test_pairs_sha256"):
        tracking.client().delete_model_version_tag(MODEL, killed.version, key)
    with pytest.raises(UserError, match="Run `dvc repro -f -s publish`"):
        promote_one(killed)
    assert publish(results(ssim=0.99, onnx="seven")) == killed
    assert promote_one(killed)
    assert promote_one(first, replace=True)


def test_what_was_published_is_promoted_by_hand_and_no_candidate_once_retired(
    first: Published, results: Callable[..., Params], params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    published = publish(results(ssim=0.98, onnx="eight"))
    promote_version(MODEL, published.version, params.gate, "by hand", force=True)
    told = [(change.alias, change.after) for change in show_version(MODEL, published.version).history]
    assert told == [("candidate", published.version), ("champion", published.version)]
    promote_one(first, replace=True)
    assert show_version(MODEL, "1").history[-1].reason == "clearcall gate --replace-champion"
    retire_version(MODEL, published.version)
    assert aliases() == {"champion": "1"}
    capsys.readouterr()
    publish(results(ssim=0.98, onnx="eight"))
    assert capsys.readouterr().out == (
        f"clearcall version {published.version} is registered, but not as candidate: the version is retired\n"
    )
    with pytest.raises(UserError, match=f"version {published.version} is retired: `clearcall models promote"):
        promote_one(published)
    assert aliases() == {"champion": "1"}
    publish(results(ssim=0.93, onnx="one"))


def test_an_experiment_does_not_take_the_candidate_away(
    first: Published,
    results: Callable[..., Params],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "tidy-moth")
    before, params = aliases()["candidate"], results(ssim=0.99, onnx="nine")
    main = params.publish.model_copy(update={"candidate": "main"})
    published = publish(params.model_copy(update={"publish": main}))
    assert published.version != before == aliases()["candidate"]
    assert "but not as candidate: this is a DVC experiment: `dvc exp apply tidy-moth`" in capsys.readouterr().out
    assert first.version == "1"


def test_a_missing_report_is_not_blamed_on_the_server(results: Callable[..., Params]) -> None:
    params = results(ssim=0.93, onnx="one")
    (params.paths.reports / "report.md").unlink()
    with pytest.raises(UserError, match=r"report\.md is missing: run `dvc repro` first"):
        publish(params)


def test_a_run_of_another_database_is_not_gone_on_with(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The state file names a run that this database has never seen: training must go on all the same."""
    write_json(home / "foreign.json", {"run_id": "e" * 32, "sent": 5})
    with tracking.TrainingRun(EXPERIMENT, "foreign", {}, home / "foreign.json") as run:
        run.log([{"step": 20, "loss_l1": 0.5}])
    assert "Traceback" not in capsys.readouterr().err
    assert run.run_id != "e" * 32


def test_a_server_that_is_away_is_the_users_to_mend(
    first: Published, results: Callable[..., Params], home: Path
) -> None:
    params = results(ssim=0.93, onnx="one")
    with at_server(home, "http://127.0.0.1:9"):
        with pytest.raises(UserError, match=r"MLflow at http://127.0.0.1:9 cannot be used") as caught:
            publish(params)
        assert "MLFLOW_TRACKING_URI" in str(caught.value)
        with pytest.raises(UserError, match="the gate is passed, but the alias 'champion' was not set: MLflow at"):
            promote_one(first)


def at_server(home: Path, uri: str) -> contextlib.AbstractContextManager[Path]:
    return inside(home, MLFLOW_TRACKING_URI=uri, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")


@contextlib.contextmanager
def server(status: int, kind: str, body: str) -> Iterator[int]:
    """Yield the port of an HTTP server on this machine that gives one answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815  # the library's names

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield listening.server_port
        listening.shutdown()


@pytest.mark.parametrize(
    ("status", "kind", "body", "message"),
    [
        (401, "text/plain", "You are not authenticated.", "refuses the credentials (401"),
        (401, "application/json", '{"detail": "Unauthorized"}', "refuses the credentials (401"),
        (401, "application/json", '{"error_code": "UNAUTHENTICATED", "message": "no"}', "refuses the credentials (401"),
        (403, "text/plain", "Permission denied", "forbids this with these credentials (403)"),
        (403, "application/json", '{"message": "Forbidden"}', "forbids this with these credentials (403)"),
    ],
)
def test_a_server_that_refuses_the_credentials_is_not_said_to_be_down(
    status: int, kind: str, body: str, message: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(status, kind, body) as port, at_server(home, f"http://somebody:secret@127.0.0.1:{port}"):
        with pytest.raises(UserError) as caught:
            promote(MODEL, sha("one"), replace=False)
        with pytest.raises(UserError) as loading:
            tracking.download_model(f"models:/{MODEL}@champion")
        with tracking.TrainingRun(EXPERIMENT, "refused", {}, home / "refused.json") as run:
            run.log([{"step": 1, "loss_l1": 1.0}])
    for said in (str(caught.value), str(loading.value), capsys.readouterr().err):
        assert f"MLflow at http://127.0.0.1:{port} {message}" in said
        assert "MLFLOW_TRACKING_PASSWORD" in said
        assert "Start the server" not in said
        assert "secret" not in said
        assert "somebody" not in said


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://somebody:secret@127.0.0.1:9", "http://127.0.0.1:9 cannot be used"),
        ("http://somebody:se/secret@127.0.0.1:9", "MLFLOW_TRACKING_URI is no valid address"),
        ("postgresql+none://somebody:secret@127.0.0.1/db", "postgresql+none://127.0.0.1/db"),
        ("htp://somebody:secret@127.0.0.1", "htp://127.0.0.1"),
    ],
)
def test_an_address_that_leads_nowhere_is_named_without_its_password(uri: str, message: str, home: Path) -> None:
    with at_server(home, uri), pytest.raises(UserError) as caught:
        promote(MODEL, sha("one"), replace=False)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_projects_folder_is_found_from_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / "dvc.yaml").touch()
    with inside(below):
        assert tracking.project_root() == tmp_path
        assert tracking.tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://team:5000")
        assert tracking.tracking_uri() == "http://team:5000"


def test_an_adapted_model_is_a_version_of_its_own_that_says_what_it_was_adapted_to(
    params: Params, home: Path, student_onnx: "tuple[nn.Module, Path]"
) -> None:
    page = home / "me.md"
    page.write_text("# Me\n", encoding="utf-8")
    page.with_suffix(".png").write_bytes(b"png")
    values = {"adapted_from": "fast", "teacher": "quality", "recordings": "call.mp4"}
    curves = {"bicubic_x2.0": [{"step": 20.0, "loss_total": 0.5}]}
    told = [register_adapted(params, student_onnx[1], page, values, curves) for _ in range(2)]
    assert told == [f"registered: models:/{MODEL}-adapted/1"] * 2
    version = tracking.client().get_model_version(f"{MODEL}-adapted", "1")
    assert version.tags.items() >= values.items()
    run = tracking.client().get_run(version.run_id or "")
    assert run.data.metrics == {"bicubic_x2.0/loss_total": 0.5}
    assert tracking.download_model(f"models:/{MODEL}-adapted/1").read_bytes() == student_onnx[1].read_bytes()
