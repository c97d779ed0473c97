"""``ccnet train`` on a CAVE folder of a few small scenes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from ccnet.contract import CCNetError
from ccnet.data.camera import Array
from ccnet.model.checkpoint import load_checkpoint
from ccnet.training.cli import app

MakeCube = Callable[..., Array]
WriteCave = Callable[[Path, Array], Path]
TRAIN = ["--steps", "2", "--batch", "1", "--patch", "16", "--config", "units=1", "--device", "cpu"]


@pytest.fixture
def sources(tmp_path: Path, make_cube: MakeCube, write_cave: WriteCave, camera_file: Path) -> dict[str, str]:
    for seed, name in enumerate(("train/a_ms", "train/b_ms", "val/c_ms")):
        write_cave(tmp_path / name, make_cube(16, 20, seed))
    return {"train": f"cave:{tmp_path}/train", "val": f"cave:{tmp_path}/val", "camera": str(camera_file)}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "x"


def run(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "100"}).invoke(app, arguments)


def train(sources: dict[str, str], out: Path, *more: str) -> Result:
    options = ["--data", sources["train"], "--val", sources["val"], "--camera", sources["camera"], "--out", str(out)]
    return run("train", *options, *TRAIN, *more)


def refusal(result: Result, words: str) -> None:
    assert isinstance(result.exception, CCNetError)
    with pytest.raises(CCNetError, match=words):
        raise result.exception


def test_train_writes_weights_and_prints_their_paths(sources: dict[str, str], out: Path) -> None:
    result = train(sources, out, "--evaluate-every", "1")
    assert result.exit_code == 0, result.output
    assert load_checkpoint(out / "best.safetensors").config.units == 1
    curves, *files = sorted((file.name for file in out.iterdir()), key=lambda name: not name.startswith("events"))
    assert curves.startswith("events.out.tfevents")
    assert sorted(files) == ["best.safetensors", "curve.json", "last.safetensors"]
    assert [line.split(":")[0] for line in result.stderr.strip().splitlines()] == ["step 1", "step 2"]
    best, last = result.stdout.splitlines()
    assert best.startswith(f"{out / 'best.safetensors'}: MRAE ")
    assert last == f"{out / 'last.safetensors'}: step 2 of 2, trained on cpu"


def test_same_command_resumes_and_other_options_are_refused(sources: dict[str, str], out: Path) -> None:
    first = train(sources, out)
    again = train(sources, out)
    assert again.exit_code == 0
    assert again.stdout == first.stdout
    assert not again.stderr.strip()
    refusal(train(sources, out, "--seed", "1"), "belongs to another recipe or other data")
    folder = Path(sources["train"].removeprefix("cave:"))
    moved = folder.rename(folder.with_name("moved"))  # scenes of the same names in another folder
    refusal(train(sources | {"train": f"cave:{moved}"}, out), "belongs to another recipe or other data")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_before_the_training_ends(sources: dict[str, str], out: Path, number: signal.Signals) -> None:
    options = ["--data", sources["train"], "--val", sources["val"], "--camera", sources["camera"], "--out", str(out)]
    code = "import sys; from ccnet.runtime.cli.main import main; sys.argv[0] = 'ccnet'; main()"
    long = ["--steps", "100000", *TRAIN[2:], "--save-every", "1000000", "--evaluate-every", "1000000"]
    command = [sys.executable, "-c", code, "train", *options, *long]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not list(out.glob("events.*")):  # the first step is in work
            time.sleep(0.05)
            assert process.poll() is None
        time.sleep(1)
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "last.safetensors: interrupted at step" in err and "Traceback" not in err
    assert (out / "last.safetensors").is_file()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/data/cave", "data is '/data/cave', expected KIND:PATH"),
        ("ntire:/data", "data is 'ntire:/data', expected KIND:PATH"),
        ("cave:", "data is 'cave:', expected KIND:PATH"),
        ("cave:/nowhere/at/all", "no such folder, expected one with CAVE scenes"),
    ],
)
def test_missing_data_is_refused(sources: dict[str, str], out: Path, source: str, words: str) -> None:
    refusal(train(sources | {"val": source}, out), words)
    assert not out.exists()


def test_missing_camera_is_refused(sources: dict[str, str], out: Path) -> None:
    refusal(train(sources | {"camera": "nowhere.npz"}, out), "no such file, expected a camera response")
    assert not out.exists()


def test_missing_gpu_is_refused(sources: dict[str, str], out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refusal(train(sources, out, "--device", "cuda"), "device is cuda, but this torch sees no CUDA GPU")
    assert not out.exists()


def test_track_and_exposure_need_a_camera(sources: dict[str, str], out: Path) -> None:
    options = ["--data", sources["train"], "--val", sources["val"], "--out", str(out)]
    for more in (["--track", "real"], ["--exposure", "0.5", "2"]):
        refusal(run("train", *options, *TRAIN, *more), "--track and --exposure need a --camera")
    refusal(run("train", *options, *TRAIN), "a_ms has no frame of its own: give the --camera")


def test_exposure_and_track_change_the_loss(sources: dict[str, str], out: Path) -> None:
    losses = []
    for number, more in enumerate(([], ["--track", "real"], ["--exposure", "0.5", "0.6"])):
        result = train(sources, out / str(number), *more)
        assert result.exit_code == 0, result.output
        losses.append(result.stderr.split("loss ")[1].split(",")[0])
    assert len(set(losses)) == 3
    refusal(train(sources, out, "--exposure", "2", "1"), "exposure is .* expected two factors")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--preset", "short", "--minutes", "1", "--steps", "2"], "--minutes and --steps are both given"),
        (["--config", "fusion=glue"], "fusion is 'glue', expected one of"),
        (["--config", "colour=red"], "no field 'colour', expected NAME=VALUE of width, units"),
        (["--config", "units=many"], "units is 'many', expected a positive integer"),
    ],
)
def test_invalid_options_are_refused(sources: dict[str, str], out: Path, more: list[str], words: str) -> None:
    refusal(train(sources, out, *more), words)
    assert not out.exists()


def test_preset_short_needs_steps_or_minutes(sources: dict[str, str], out: Path) -> None:
    options = ["--data", sources["train"], "--val", sources["val"], "--camera", sources["camera"], "--out", str(out)]
    refusal(run("train", *options, "--preset", "short"), "short has no length of its own: give --minutes, or --steps")


def test_run_starts_from_weights(sources: dict[str, str], out: Path, tmp_path: Path) -> None:
    train(sources, tmp_path / "first")
    best = tmp_path / "first" / "best.safetensors"
    result = train(sources, out, "--lr", "0", "--from", str(best))
    assert result.exit_code == 0, result.output
    before, after = load_checkpoint(best).state_dict(), load_checkpoint(out / "best.safetensors").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    refusal(
        train(sources, out, "--config", "patch=8", "--from", str(best)),
        "weights to start from have patch=16, and patch=8 is asked for",
    )


def test_network_of_a_run_is_that_of_the_weights_it_starts_from(
    sources: dict[str, str], out: Path, tmp_path: Path
) -> None:
    train(sources, tmp_path / "first", "--config", "normalise=true", "--config", "base=mlp")
    best = tmp_path / "first" / "best.safetensors"
    result = train(sources, out, "--from", str(best))
    assert result.exit_code == 0, result.output
    assert load_checkpoint(out / "best.safetensors").config == load_checkpoint(best).config


@pytest.mark.usefixtures("threads")
def test_threads_option_sets_torchs_threads(sources: dict[str, str], out: Path) -> None:
    assert train(sources, out, "--threads", "1").exit_code == 0
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    "option", ["--steps", "--batch", "--patch", "--evaluate-every", "--save-every", "--minutes", "--threads"]
)
def test_numbers_below_one_are_refused(sources: dict[str, str], out: Path, option: str) -> None:
    result = train(sources, out, option, "0")
    assert result.exit_code == 2
    assert option in result.stderr


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from ccnet.training.cli import app\n"
        "result = CliRunner().invoke(app, ['train', '--help'])\n"
        "assert result.exit_code == 0 and 'resumes' in result.stdout\n"
        "assert not {'torch', 'cv2', 'safetensors'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_measured_cameras_need_a_single_camera_and_known_brands(sources: dict[str, str], out: Path) -> None:
    cameras = ("--cameras", sources["camera"])
    refusal(train(sources, out, "--held-out-brand", "Nikon"), "are for --cameras, and there are none")
    refusal(train(sources, out, "--camera-shift", "8"), "are for --cameras, and there are none")
    refusal(train(sources, out, *cameras, "--held-out-brand", "Nikon"), "has no camera, expected one of camera")
    refusal(train(sources, out, *cameras, "--held-out-brand", "camera"), "hold out fewer brands")
    refusal(train(sources, out, *cameras, "--camera", sources["camera"]), "a single --camera")
    result = train(sources, out, *cameras, "--camera-share", "0.4", "--rmse-weight", "2", "--average", "0.9")
    assert result.exit_code == 0, result.output
    refusal(
        train(sources, out, *cameras, "--camera-share", "0.4", "--camera-shift", "8"), "another recipe or other data"
    )


def test_surfaces_are_part_of_the_run(sources: dict[str, str], out: Path, tmp_path: Path) -> None:
    surfaces = tmp_path / "surfaces.npy"
    np.save(surfaces, np.linspace(0.1, 0.9, 62).reshape(2, 31))
    refusal(train(sources, out, "--surfaces", str(tmp_path / "none.npy")), "expected arrays")
    result = train(sources, out, "--surfaces", str(surfaces), "--surface-share", "1", "--config", "normalise=true")
    assert result.exit_code == 0, result.output
    refusal(train(sources, out, "--config", "normalise=true"), "belongs to another recipe or other data")
    refusal(train(sources, out, "--config", "normalise=yes"), "normalise is 'yes', expected true or false")


def test_varied_spectra_and_the_last_learning_rate_are_part_of_the_run(sources: dict[str, str], out: Path) -> None:
    result = train(sources, out, "--vary-spectra", "1", "--final-lr", "1e-6")
    assert result.exit_code == 0, result.output
    refusal(train(sources, out, "--vary-spectra", "0.5", "--final-lr", "1e-6"), "another recipe or other data")
    refusal(train(sources, out, "--vary-spectra", "1"), "another recipe or other data")
