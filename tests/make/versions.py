"""Registered versions as `publish` leaves them, without a pipeline."""

from clearcall.tracking import runs

NAME = "clearcall"
ORIGIN = {"mlflow.user": "anna", "mlflow.source.git.commit": "0123456789abcdef"}
PARAMS = "distill_student:\n  training: {steps: 2000}\ndegrade_pairs:\n  mix: [webcam]\n"


def register(ssim: float = 0.93, *, params: str = PARAMS, drop: tuple[str, ...] = (), **tags: str) -> str:
    """Register a version with the tags and the run that `publish` leaves; return its number."""
    client = runs.client()
    run = client.create_run(runs.experiment_id("clearcall"), run_name="student 0123456", tags=ORIGIN)
    run_id = run.info.run_id
    runs.log_params(run_id, {"channels": 8})
    runs.log_rows(run_id, [{"step": 0, "parameters": 5000, "test_ssim": ssim, "latency_ms": 15.5, "system/x": 1}])
    client.log_text(run_id, "onnx", "model/model.onnx")
    if params:
        client.log_text(run_id, params, "report/params.yaml")
    found = {
        "onnx_sha256": run_id,
        "gate": "not judged",
        "ssim": str(ssim),
        "psnr_db": "31.5",
        "ssim_over_unsharp": "0.01",
        "psnr_db_over_unsharp": "0.5",
        "fps": "60.0",
        "fps_size": "1920x1080",
        "machine": "Abacus 9000",
        "machine_id": "0" * 16,
        "test_manifest_sha256": "m",
        "test_pairs_sha256": "p",
        **tags,
    }
    if not client.search_registered_models(f"name='{NAME}'"):
        client.create_registered_model(NAME)
    kept = {key: value for key, value in found.items() if key not in drop}
    return str(client.create_model_version(NAME, f"{run.info.artifact_uri}/model", run_id, tags=kept).version)
