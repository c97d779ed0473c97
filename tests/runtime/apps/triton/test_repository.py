"""A model repository is whole, replaced as a whole, and other programs' models in it are kept."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ccnet.contract import ArtifactFolder, sha256
from ccnet.runtime.apps.triton.repository import write_repository
from ccnet.runtime.apps.triton.service import ServiceSettings
from tests.runtime.conftest import refusal


@pytest.fixture
def artifacts(folder: Path, tmp_path: Path) -> Path:
    """A copy of the small network's artifacts, which a test may damage."""
    return shutil.copytree(folder, tmp_path / "artifacts")


def test_export_writes_three_models_and_a_copy_of_the_artifacts(artifacts: Path, tmp_path: Path, ccnet: object) -> None:
    models = tmp_path / "models"
    written = write_repository(ArtifactFolder.open(artifacts), models, ServiceSettings())
    assert written == [models / "ccnet", models / "encode", models / "decode"]
    assert ArtifactFolder.open(models / "ccnet/1/artifacts").is_intact()
    assert {path.name for path in models.iterdir()} == {"ccnet", "encode", "decode"}


def test_second_export_replaces_the_first(artifacts: Path, tmp_path: Path) -> None:
    folder, models = ArtifactFolder.open(artifacts), tmp_path / "models"
    write_repository(folder, models, ServiceSettings(context="smooth"))
    (models / "ccnet/1/left-over").touch()
    write_repository(folder, models, ServiceSettings(context="every:3"))
    assert "every:3" in (models / "ccnet/config.pbtxt").read_text()
    assert not (models / "ccnet/1/left-over").exists()


def test_damaged_artifact_leaves_the_older_models(artifacts: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_repository(ArtifactFolder.open(artifacts), models, ServiceSettings())
    before = (models / "ccnet/config.pbtxt").read_text()
    (artifacts / "decode.onnx").write_bytes(b"damaged")
    refusal(
        lambda: write_repository(ArtifactFolder.open(artifacts), models, ServiceSettings(context="smooth")),
        "decode.onnx",
        "export again",
    )
    assert (models / "ccnet/config.pbtxt").read_text() == before
    assert {path.name for path in models.iterdir()} == {"ccnet", "encode", "decode"}


def test_model_that_cannot_take_its_place_leaves_the_older_model(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, models = ArtifactFolder.open(artifacts), tmp_path / "models"
    write_repository(folder, models, ServiceSettings(context="every:3"))
    rename = Path.rename

    def fail_once(path: Path, target: Path) -> Path:
        if target == models / "ccnet":
            monkeypatch.undo()
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    refusal(lambda: write_repository(folder, models, ServiceSettings(context="smooth")), "cannot be written")
    assert "every:3" in (models / "ccnet/config.pbtxt").read_text()
    assert {path.name for path in models.iterdir()} == {"ccnet", "encode", "decode"}


def test_model_of_another_program_is_kept(artifacts: Path, tmp_path: Path) -> None:
    (tmp_path / "models/encode").mkdir(parents=True)
    (tmp_path / "models/encode/config.pbtxt").write_text('name: "encode"\n')
    refusal(
        lambda: write_repository(ArtifactFolder.open(artifacts), tmp_path / "models", ServiceSettings()),
        "models/encode",
        "it is kept",
    )
    assert (tmp_path / "models/encode/config.pbtxt").read_text() == 'name: "encode"\n'


def test_engine_that_is_whole_by_itself_is_served_in_place_of_the_graph(artifacts: Path, tmp_path: Path) -> None:
    folder = ArtifactFolder.open(artifacts)
    for name, details in (("plain", {}), ("stripped", {"stripped": True})):
        (artifacts / name).write_bytes(name.encode())
        graph = folder.find("decode")
        digest = sha256(artifacts / name)
        folder.add(replace(graph, file=name, format="tensorrt", precision="fp16", sha256=digest, details=details))
    write_repository(folder, tmp_path / "models", ServiceSettings())
    assert (tmp_path / "models/decode/1/model.plan").read_bytes() == b"plain"
    write_repository(folder, tmp_path / "models", ServiceSettings(precision="fp32"))
    assert (tmp_path / "models/decode/1/model.onnx").read_bytes() == (artifacts / "decode.onnx").read_bytes()
