"""The ablation study trains each network once a seed, shares it among the tables, and prints the tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ccnet.contract import CCNetError
from ccnet.data.camera import Array
from ccnet.evaluation.validation import ValidationScore
from ccnet.model.ablations import TABLES
from ccnet.model.config import CCNetConfig
from ccnet.training import ablation_curves
from ccnet.training import ablation_study as module
from ccnet.training import trainer as trainer_module
from ccnet.training.ablation_study import Training, plan_trainings, row_configs
from ccnet.training.ablation_tables import TableRow, json_tables, markdown_tables
from ccnet.training.cli import app
from ccnet.training.trainer import Trainer

MakeCube = Callable[..., Array]
WriteCave = Callable[[Path, Array], Path]


def score(psnr: float) -> ValidationScore:
    return ValidationScore(mrae=psnr / 100, rmse=0.1, psnr=psnr, sam=5.0)


def test_plan_trains_each_network_once_a_seed() -> None:
    trainings = plan_trainings(list(TABLES), CCNetConfig(), (0, 1))
    assert len(set(trainings)) == len(trainings) == 2 * 12  # 15 rows, of which the paper's network is four
    assert [training.seed for training in trainings] == 12 * [0] + 12 * [1]
    assert len({training.name for training in trainings}) == len(trainings)
    assert plan_trainings(["II"], CCNetConfig(), (3,))[1].name == "ccnet_seed-3"


def test_base_network_holds_where_a_row_sets_no_field() -> None:
    rows = row_configs(["II", "V"], CCNetConfig(units=1, patch=8))
    assert rows["II"] == {
        "MHA": CCNetConfig(units=1, patch=8, inter_spectral="mha"),
        "Ours": CCNetConfig(units=1, patch=8),
    }
    assert rows["V"]["16"] == CCNetConfig(units=1)


def test_row_is_mean_and_spread_over_seeds() -> None:
    row = TableRow(name="Ours", parameters=1611036, scores=(score(30), score(32), score(34)))
    assert row.mean("psnr") == 32
    assert row.spread("psnr") == 2
    assert TableRow(name="one", parameters=1, scores=(score(30),)).spread("psnr") == 0
    text = markdown_tables({"II": [row]})
    assert "| Ours | 1,611,036 | 0.3200 ± 0.0200 | 0.1000 ± 0.0000 | 32.00 ± 2.00 | 5.00 ± 0.00 |" in text
    assert json_tables({"II": [row]})["II"]["Ours"]["psnr"] == {"mean": 32, "spread": 2, "seeds": [30, 32, 34]}


def test_curve_is_mean_and_spread_after_each_step() -> None:
    curves = ({2: score(20), 4: score(30)}, {2: score(24), 3: score(25), 4: score(30)})
    row = TableRow(name="Ours", parameters=1, scores=(score(30), score(30)), curves=curves)
    assert row.steps == [2, 4]  # of both seeds
    curve = json_tables({"II": [row]})["II"]["Ours"]["curve"]
    assert [*curve] == ["2", "4"]
    assert curve["2"]["psnr"] == {"mean": 22, "spread": pytest.approx(8**0.5), "seeds": [20, 24]}
    assert curve["4"]["psnr"] == {"mean": 30, "spread": 0, "seeds": [30, 30]}


def test_picture_has_a_line_for_each_row_and_a_band_of_the_spread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = []
    monkeypatch.setattr(ablation_curves, "save_figure", lambda figure, path: figures.append(figure))
    curves = ({2: score(20), 4: score(30)}, {2: score(24), 4: score(30)})
    rows = [TableRow(name=name, parameters=1, scores=(), curves=curves) for name in ("MHA", "Ours")]
    ablation_curves.draw_curves(tmp_path / "curves.png", {"II": rows, "V": rows[1:]})
    psnr, mrae, *_ = figures[0].axes
    assert len(figures[0].axes) == 4  # PSNR and MRAE of each table
    assert [text.get_text() for text in psnr.get_legend().get_texts()] == ["MHA, 2 seeds", "Ours, 2 seeds"]
    assert [*psnr.lines[0].get_xdata()] == [2, 4]
    assert [*psnr.lines[0].get_ydata()] == [22, 30]
    assert [*mrae.lines[0].get_ydata()] == pytest.approx([0.22, 0.3])
    band = psnr.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((22 - 8**0.5, 30))


@pytest.fixture
def arguments(tmp_path: Path, make_cube: MakeCube, write_cave: WriteCave, camera_file: Path) -> list[str]:
    for seed, name in enumerate(("train/a_ms", "val/b_ms")):
        write_cave(tmp_path / name, make_cube(16, 20, seed))
    return [
        "ablate", "--data", f"cave:{tmp_path}/train", "--val", f"cave:{tmp_path}/val", "--camera", str(camera_file),
        "--out", str(tmp_path / "runs"), "--steps", "1", "--patch", "16", "--batch", "1", "--config", "units=1",
        "--device", "cpu", "--table", "II",
    ]  # fmt: skip


def test_command_writes_tables_and_does_not_repeat_finished_trainings(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    document = json.loads((tmp_path / "runs" / "tables.json").read_text())
    tables = document["tables"]
    assert (document["cameras"], document["track"], document["seeds"], document["device"]) == (
        ["camera"],
        "clean",
        [0],
        "cpu",
    ) and document["config"]["units"] == 1
    assert list(tables) == ["II"]
    assert list(tables["II"]) == ["MHA", "Ours"]
    assert tables["II"]["MHA"]["psnr"]["mean"] != tables["II"]["Ours"]["psnr"]["mean"]
    assert "**Table II**" in (tmp_path / "runs" / "tables.md").read_text()
    assert max(map(len, result.stdout.splitlines()[:-1])) <= 80
    assert not (tmp_path / "runs" / "curves.png").exists()  # of a single point

    start_steps: list[int] = []
    monkeypatch.setattr(module, "Trainer", lambda *args: record_step(Trainer(*args), start_steps))
    again = CliRunner(env={"COLUMNS": "80"}).invoke(app, arguments, catch_exceptions=False)
    assert again.stdout == result.stdout
    assert start_steps == [1, 1]  # both trainings resumed at their last step


def record_step(trainer: Trainer, steps: list[int]) -> Trainer:
    steps.append(trainer.step)
    return trainer


def test_table_is_the_score_after_the_last_step_of_several_validations(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    psnrs, out = iter((10, 30) * 2), tmp_path / "runs"
    monkeypatch.setattr(trainer_module, "validate", lambda model, scenes: score(next(psnrs)))
    arguments[arguments.index("--steps") + 1] = "3"
    CliRunner().invoke(app, [*arguments, "--evaluate-every", "2"], catch_exceptions=False)
    row = json.loads((out / "tables.json").read_text())["tables"]["II"]["MHA"]
    assert row["psnr"]["seeds"] == [30]  # the first has the least MRAE
    assert {step: point["psnr"]["mean"] for step, point in row["curve"].items()} == {"2": 10, "3": 30}
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [point["step"] for point in json.loads((out / "units-1_seed-0" / "curve.json").read_text())] == [2, 3]


def test_finished_training_without_a_curve_is_validated_again(arguments: list[str], tmp_path: Path) -> None:
    """Trainings of version 0.1.0 have no curve.json."""
    first = CliRunner(env={"COLUMNS": "80"}).invoke(app, arguments, catch_exceptions=False)
    for file in (tmp_path / "runs").glob("*/curve.json"):
        file.unlink()
    again = CliRunner(env={"COLUMNS": "80"}).invoke(app, arguments, catch_exceptions=False)
    assert again.stdout == first.stdout


def test_exactly_one_of_steps_and_minutes_is_required(arguments: list[str]) -> None:
    at = arguments.index("--steps")
    for changed in ([*arguments, "--minutes", "1"], arguments[:at] + arguments[at + 2 :]):
        with pytest.raises(CCNetError, match="expected --steps or --minutes, and not both"):
            CliRunner().invoke(app, changed, catch_exceptions=False)


def test_unknown_table_is_refused(arguments: list[str]) -> None:
    with pytest.raises(CCNetError, match="--table VI: the paper's ablation tables are II, III, IV, V"):
        CliRunner().invoke(app, [*arguments, "--table", "VI"], catch_exceptions=False)


def test_training_name_is_its_folder() -> None:
    training = Training(config=CCNetConfig(fusion="add", units=1), seed=0)
    assert training.name == "units-1_fusion-add_seed-0"
