"""The extension's manifest, and the zip file that it is shipped as."""

import hashlib
import json
import time
import zipfile
from pathlib import Path

from tests.make.browsers import skip_without_runtime

from clearcall.web.pack import SOURCE, extension_files, write_zip


def test_the_manifest_asks_for_no_more_than_it_needs() -> None:
    manifest = json.loads((SOURCE / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest) == {
        "manifest_version", "name", "version", "description", "minimum_chrome_version", "browser_specific_settings",
        "permissions", "action", "content_security_policy", "cross_origin_embedder_policy", "web_accessible_resources",
    }  # fmt: skip
    assert manifest["manifest_version"] == 3 and manifest["permissions"] == ["activeTab", "scripting", "storage"]
    policy = manifest["content_security_policy"]["extension_pages"]
    assert "default-src 'none'" in policy and "'wasm-unsafe-eval'" in policy
    assert not any(word in policy for word in ("http", "*", "unsafe-inline", "'unsafe-eval'"))
    [accessible] = manifest["web_accessible_resources"]
    assert accessible["resources"] == ["engine.html"]
    assert set(manifest["browser_specific_settings"]) == {"gecko"}
    assert {path.name for path in SOURCE.iterdir()} >= {manifest["action"]["default_popup"], "engine.html"}


def test_the_zip_file_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    skip_without_runtime()
    digests = set()
    for name in ("a.zip", "b.zip"):
        write_zip(tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
        time.sleep(0.1)
    assert len(digests) == 1
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == [*extension_files()]
        assert {"manifest.json", "NOTICE", "sharpen.js", "models/fast.onnx"} <= set(archive.namelist())
        assert "vendor/mediabunny.min.mjs" not in archive.namelist()  # it saves no videos
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
