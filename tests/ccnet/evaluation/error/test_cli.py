"""``ccnet fit-error`` on a CAVE folder of a few small scenes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ccnet.contract import CCNetError
from ccnet.data.camera import Array
from ccnet.evaluation.cli import app
from ccnet.metrics.predicted_error import ErrorModel
from ccnet.model import CCNet
from ccnet.model.checkpoint import save_checkpoint, weights_hash


@pytest.fixture
def options(
    tmp_path: Path,
    make_cube: Callable[..., Array],
    write_cave: Callable[[Path, Array], Path],
    camera_file: Path,
    network: CCNet,
    threads: None,
) -> list[str]:
    """The command's options for three scenes, and one to check on, with weights of a tiny network."""
    for seed, name in enumerate(("train/a_ms", "train/b_ms", "train/c_ms", "val/d_ms")):
        write_cave(tmp_path / name, make_cube(16, 16, seed))
    save_checkpoint(tmp_path / "w.safetensors", network)
    files = ["--camera", str(camera_file), "--weights", str(tmp_path / "w.safetensors")]
    return ["--train", f"cave:{tmp_path}/train", *files, "--device", "cpu", "--threads", "1"]


def fit(*options: str) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, ["fit-error", *options])


def test_file_is_written_beside_the_weights(options: list[str], tmp_path: Path, network: CCNet) -> None:
    result = fit(*options, "--data", f"cave:{tmp_path}/val", "--folds", "3", "--json", str(tmp_path / "fit.json"))
    assert result.exit_code == 0, result.output
    target = tmp_path / "w.error.npz"
    assert ErrorModel.from_bytes(target, target.read_bytes()).weights_sha256 == weights_hash(network)
    for words in ("each left out of the fit", "scenes to check on", "of 3 scenes within 85% to 95%"):
        assert words in result.output
    document = json.loads((tmp_path / "fit.json").read_text())["CCNet"]
    assert len(document["training scenes, each left out of the fit"]["scenes"]) == 3
    assert len(document["scenes to check on"]["scenes"]) == 1 and document["inflation"] >= 1


def test_files_go_into_a_folder(options: list[str], tmp_path: Path) -> None:
    assert fit(*options, "--folds", "2", "--out", str(tmp_path / "new")).exit_code == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["w.error.npz"]
    assert not (tmp_path / "w.error.npz").exists()


def test_networks_of_other_weights_are_used_again(options: list[str], tmp_path: Path) -> None:
    first, second = tmp_path / "w.error.npz", tmp_path / "again" / "w.error.npz"
    assert fit(*options, "--folds", "3").exit_code == 0
    assert fit(*options, "--folds", "3", "--like", str(first), "--out", str(tmp_path / "again")).exit_code == 0
    assert second.read_bytes() == first.read_bytes()
    result = fit(*options, "--folds", "3", "--like", str(tmp_path / "none.npz"))
    assert isinstance(result.exception, CCNetError) and "no such file" in str(result.exception)


def test_too_few_scenes_are_refused(options: list[str]) -> None:
    result = fit(*options)
    assert isinstance(result.exception, CCNetError)
    with pytest.raises(CCNetError, match="3 scenes, expected at least 5"):
        raise result.exception
