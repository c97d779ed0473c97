"""``ccnet evaluate`` on a CAVE folder of a few small scenes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from ccnet.contract import CCNetError
from ccnet.data.camera import Array, Camera, read_cameras
from ccnet.evaluation.cli import app
from ccnet.model import CCNet
from ccnet.model.checkpoint import save_checkpoint, weights_hash

MakeCube = Callable[..., Array]
PIXEL_METHODS = ["linear", "root-polynomial 2", "root-polynomial 3", "root-poly. 3, rel.", "per-pixel MLP"]


@pytest.fixture
def options(
    tmp_path: Path, make_cube: MakeCube, write_cave: Callable[[Path, Array], Path], camera_file: Path, network: CCNet
) -> dict[str, str]:
    """The command's options for two scenes, with weights of a tiny network."""
    for seed, name in enumerate(("train/a_ms", "train/b_ms", "val/c_ms", "val/d_ms")):
        write_cave(tmp_path / name, make_cube(16, 20, seed))
    save_checkpoint(tmp_path / "w.safetensors", network)
    return {
        "--data": f"cave:{tmp_path}/val",
        "--camera": str(camera_file),
        "--weights": str(tmp_path / "w.safetensors"),
        "--device": "cpu",
    }


def evaluate(options: dict[str, str], *more: str) -> Result:
    words = [word for option in options.items() for word in option]
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, ["evaluate", *words, *more])


def rows(result: Result) -> list[list[str]]:
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if "│" in line]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


def refusal(result: Result, words: str) -> None:
    assert isinstance(result.exception, CCNetError)
    with pytest.raises(CCNetError, match=words):
        raise result.exception


def test_networks_and_pixel_methods_share_a_table(options: dict[str, str], tmp_path: Path) -> None:
    table = rows(evaluate(options, "--train", f"cave:{tmp_path}/train"))
    assert [row[0] for row in table if row[0]] == 3 * ["CCNet", *PIXEL_METHODS]
    assert all(float(figure) > 0 for row in table if row[0] for figure in row[1:-1] if figure != "–")
    assert all(row[1].startswith("±") for row in table if not row[0])


def test_without_training_cubes_there_are_no_pixel_methods(options: dict[str, str]) -> None:
    assert [row[0] for row in rows(evaluate(options)) if row[0]] == 3 * ["CCNet"]


def test_several_weights_have_their_own_names(options: dict[str, str], tmp_path: Path, network: CCNet) -> None:
    save_checkpoint(tmp_path / "v.safetensors", network)
    table = rows(evaluate(options, "--weights", str(tmp_path / "v.safetensors"), "--per-scene"))
    assert [row[0] for row in table if row[0]] == 5 * ["w", "v"]
    assert table[0][1:-1] == table[1][1:-1]  # the same network


def test_ensemble_is_a_row_and_a_line_about_its_gain(options: dict[str, str]) -> None:
    result = evaluate(options | {"--data": options["--data"] + "/c_ms"}, "--ensemble", "--scale", "0.5")
    assert [row[0] for row in rows(result) if row[0]] == 3 * ["CCNet", "CCNet + ensemble"]
    assert result.stdout.splitlines()[-1].startswith("CCNet + ensemble: MRAE ")


def test_selfcheck_is_one_line(options: dict[str, str]) -> None:
    line = next(line for line in evaluate(options).stdout.splitlines() if line.startswith("CCNet: reprojection"))
    assert re.search(r"residual \d+\.\d%, which ranks .* AUC \d\.\d\d; it cannot see \d+\.\d% of", line)


def test_folder_gets_metrics_and_pictures(options: dict[str, str], tmp_path: Path, network: CCNet) -> None:
    out = tmp_path / "some" / "where"
    result = evaluate(options, "--train", f"cave:{tmp_path}/train", "--out", str(out))
    table = rows(result)
    assert sorted(file.name for file in out.iterdir()) == ["001-c_ms.png", "002-d_ms.png", "bands.png", "metrics.json"]
    assert result.stdout.splitlines()[-1].startswith(f"{out / 'metrics.json'}: 6 methods on 2 scenes")
    document = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert list(document["methods"]) == ["CCNet", *PIXEL_METHODS]
    assert f"{document['methods']['CCNet']['full']['mean']['psnr']:.2f}" == table[0][4]
    assert [scene["scene"] for scene in document["methods"]["linear"]["scenes"]] == ["c_ms", "d_ms"]
    run = document["run"]
    assert (run["cameras"], run["track"], run["device"]) == (["camera"], "clean", "cpu")
    assert run["weights"]["CCNet"]["sha256"] == weights_hash(network)
    assert run["weights"]["CCNet"]["config"]["units"] == 1
    assert run["versions"].keys() == {"ccnet", "python", "numpy", "torch"}


def test_weights_of_another_camera_are_warned_of(options: dict[str, str], tmp_path: Path, network: CCNet) -> None:
    own = read_cameras([Path(options["--camera"])])[0]
    other = Camera(name="other", response=np.roll(own.response, 1, axis=1))
    for camera, warning in (
        (own, ""),
        (other, "CCNet: its weights are for the camera other, the frames are of camera"),
    ):
        save_checkpoint(tmp_path / "w.safetensors", network, camera=camera.to_entry())
        assert evaluate(options).stderr.strip() == warning


def test_real_track_is_harder_and_repeatable(options: dict[str, str], tmp_path: Path) -> None:
    fit = ["--train", f"cave:{tmp_path}/train"]
    clean, real, again = (rows(evaluate(options, *fit, "--track", track)) for track in ("clean", "real", "real"))
    assert [row[:-1] for row in real] == [row[:-1] for row in again]
    linear = [float(next(row for row in table if row[0] == "linear")[4]) for table in (clean, real)]
    assert linear[1] < linear[0]


def test_invalid_options_are_refused_before_anything_is_computed(options: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    refusal(evaluate(options, "--scale", "0.5"), "--scale 0.5 is an option of the ensemble: give --ensemble")
    refusal(evaluate(options | {"--weights": "nowhere.safetensors"}, "--out", str(out)), "no such file")
    refusal(evaluate(options | {"--data": "cave:/nowhere/at/all"}, "--out", str(out)), "no such folder")
    published = {option: value for option, value in options.items() if option != "--camera"}
    refusal(evaluate(published, "--out", str(out)), "has no frame of its own: give the --camera")
    assert not out.exists()
    taken = tmp_path / "taken"
    taken.write_text("")
    refusal(evaluate(options, "--out", str(taken)), "cannot be made")


@pytest.mark.parametrize(("module", "command"), [("ccnet.evaluation.cli", "evaluate"), ("ccnet.data.cli", "simulate")])
def test_help_needs_no_torch(module: str, command: str) -> None:
    code = (
        f"import sys; from typer.testing import CliRunner; from {module} import app\n"
        f"result = CliRunner().invoke(app, ['{command}', '--help'])\n"
        "assert result.exit_code == 0 and '--exposure' in result.stdout\n"
        "assert not {'torch', 'cv2', 'scipy', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pixels_and_bands_without_data_are_left_out_and_counted(
    options: dict[str, str],
    tmp_path: Path,
    make_cube: Callable[..., Array],
    write_envi: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    cube = make_cube(32, 40)
    cube[:, :4], cube[0] = -1, 77
    write_envi(tmp_path / "e/leaf.hdr", cube, {"data ignore value": -1, "bbl": [0] + 30 * [1]})
    source, out = f"envi:{tmp_path}/e", tmp_path / "out"
    result = evaluate(options | {"--data": source}, "--train", source, "--out", str(out))
    assert result.exit_code == 0, result.exception
    assert caplog.messages == [
        f"{tmp_path}/e/leaf.hdr: 160 of 1280 pixels and 1 of 31 bands (400 nm) have no data by its header: they neither"
        " train nor count"
    ]
    methods = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["methods"]
    for method in methods.values():
        assert method["scenes"][0]["without_data"] == {"pixels": 160, "bands": [400]}
        assert method["full"]["mean"]["band_rmse"][0] is None and method["full"]["mean"]["mrae"] > 0
    assert methods["root-polynomial 3"]["full"]["mean"]["rmse"] < 0.1  # the bad band is not fitted
