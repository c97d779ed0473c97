"""``ccnet fit-error`` on a CAVE folder of a few small scenes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from ccnet.contract import SHIPPED_WEIGHTS, CCNetError
from ccnet.data.camera import Array
from ccnet.data.patches import SceneDataset
from ccnet.evaluation.cli import app
from ccnet.metrics.predicted_error import ErrorModel, error_file
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


@pytest.fixture
def bad_scene(tmp_path: Path, make_cube: Callable[..., Array], monkeypatch: pytest.MonkeyPatch) -> str:
    """A training scene with a bad band, as NaN in a cube with a header; its name."""
    cube = make_cube(16, 16, 7)
    cube[3] = np.nan
    read = SceneDataset.pair

    def pair(self: SceneDataset, index: int) -> tuple[Array, Array]:
        frame, truth = read(self, index)
        return (frame, cube) if self.scenes[index].name == "z_ms" else (frame, truth)

    monkeypatch.setattr(SceneDataset, "pair", pair)
    return "z_ms"


def test_scenes_with_a_bad_band_are_left_out_and_named(
    options: list[str],
    bad_scene: str,
    tmp_path: Path,
    make_cube: Callable[..., Array],
    write_cave: Callable[[Path, Array], Path],
) -> None:
    for part in ("train", "val"):
        write_cave(tmp_path / part / bad_scene, make_cube(16, 16, 7))
    result = fit(*options, "--data", f"cave:{tmp_path}/val", "--folds", "2", "--json", str(tmp_path / "fit.json"))
    assert result.exit_code == 0, result.output
    assert result.output.count(f"left out, no pixel has data in all bands: {bad_scene}\n") == 2
    assert "nan%" not in result.output  # neither a coverage nor a share
    document = json.loads((tmp_path / "fit.json").read_text())["CCNet"]
    assert len(document["training scenes, each left out of the fit"]["scenes"]) == 3
    shutil.rmtree(tmp_path / "train" / "c_ms")
    result = fit(*options, "--folds", "2")
    assert isinstance(result.exception, CCNetError) and "2 scenes with data in all bands" in str(result.exception)


def test_the_packages_own_file_is_not_replaced(options: list[str]) -> None:
    options[options.index("--weights") + 1] = str(SHIPPED_WEIGHTS)
    before = error_file(SHIPPED_WEIGHTS).read_bytes()
    result = fit(*options, "--folds", "2")
    assert isinstance(result.exception, CCNetError) and "give --out, a folder for yours" in str(result.exception)
    assert error_file(SHIPPED_WEIGHTS).read_bytes() == before


def test_two_weights_with_one_file_are_refused(options: list[str], tmp_path: Path) -> None:
    other = tmp_path / "other" / "w.safetensors"
    other.parent.mkdir()
    other.write_bytes((tmp_path / "w.safetensors").read_bytes())
    result = fit(*options, "--weights", str(other), "--folds", "3", "--out", str(tmp_path / "new"))
    assert isinstance(result.exception, CCNetError)
    assert "w.error.npz: is the file for" in str(result.exception) and str(other) in str(result.exception)
    assert not (tmp_path / "new").exists()
