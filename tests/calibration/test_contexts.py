"""``ccnet calibrate contexts``: the schemes read what they say, and equal contexts cost nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ccnet.calibration import contexts
from ccnet.calibration.cli import app
from ccnet.calibration.contexts import ContextCost, cheaper_contexts, measure, sample_tiles
from ccnet.contract import ArtifactFolder, CCNetError
from ccnet.metrics import mrae
from ccnet.model import CCNet
from ccnet.runtime import Reconstructor


def blocks(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return a frame of blocks of 32 px in random colours."""
    colours = np.random.default_rng(seed).random((-(-height // 32), -(-width // 32), 3), np.float32)
    return np.ascontiguousarray(colours.repeat(32, 0).repeat(32, 1)[:height, :width])


def test_one_tile_in_four_is_sampled_in_order() -> None:
    frame = np.arange(70 * 150 * 3, dtype=np.float32).reshape(70, 150, 3)
    sampled = sample_tiles(frame, 16)
    assert sampled.shape == (32, 64, 3)
    for row, column in ((0, 0), (0, 1), (1, 3)):
        tile = frame[row * 32 : row * 32 + 16, column * 32 : column * 32 + 16]
        np.testing.assert_array_equal(sampled[row * 16 : (row + 1) * 16, column * 16 : (column + 1) * 16], tile)
    assert sample_tiles(frame, 64).size == 0


def test_schemes_read_the_pixels_that_they_say(artifacts: tuple[CCNet, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "MEANS_SIDES", (512, 64, 32))
    read: dict[str, int] = {}
    with Reconstructor.open(artifacts[1], input_space="camera", backend="onnxruntime") as run:
        frame = blocks(128, 160)
        for cheap in cheaper_contexts(run, frame):
            assert cheap.context.shape == (1, run.manifest.context_size)
            read[cheap.name] = cheap.pixels
    assert read == {
        "means of at most 64² blocks": 43 * 54,  # of 3×3 px
        "means of at most 32² blocks": 26 * 32,  # of 5×5 px
        "one tile in four, 64 px": 64 * 64,
        "one tile in four, 32 px": 64 * 64,
        "the frame before, moved by 16 px": 0,
    }


def test_costs_are_the_distances_of_the_cubes(artifacts: tuple[CCNet, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "MEANS_SIDES", (48,))
    frames = [blocks(64, 64, seed) for seed in range(3)]
    costs = {cost.name: cost for cost in measure(ArtifactFolder.open(artifacts[1]), frames, 64)}
    foreign = costs["another frame's context"]
    assert foreign.frames == 3
    assert foreign.share == 0
    assert 0 < foreign.mrae <= foreign.worst_mrae
    with Reconstructor.open(artifacts[1], input_space="camera", backend="onnxruntime") as run:
        own = [run.encode(frame) for frame in frames]
        distances = [
            mrae(run(frame, own[index]), run(frame, own[0 if index else 1])) for index, frame in enumerate(frames)
        ]
        run.encode_pixels = 48 * 48
        reduced = [mrae(run(frame, own[index]), run(frame, run.encode(frame))) for index, frame in enumerate(frames)]
    assert foreign.worst_mrae == pytest.approx(max(distances), rel=1e-6)
    assert foreign.mrae == pytest.approx(np.median(distances), rel=1e-6)
    means = costs["means of at most 48² blocks"]
    assert means.worst_mrae == pytest.approx(max(reduced), rel=1e-6)
    assert means.share == pytest.approx(1 / 4)  # blocks of 2×2 px


def test_command_prints_the_table_and_writes_it(artifacts: tuple[CCNet, Path], photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "contexts.json"
    arguments = ["calibrate", "contexts", str(artifacts[1]), "--frames", str(photos), "--side", "16"]
    result = CliRunner(env={"COLUMNS": "100"}).invoke(app, [*arguments, "--json", str(file)])
    assert result.exit_code == 0, result.output
    for words in ("means of at most 64² blocks", "one tile in four, 32 px", "moved by 128 px", "on 2 frames"):
        assert words in result.stdout
    report = json.loads(file.read_text())
    assert report["side"] == 16
    assert len(report["frames"]) == 2
    assert {ContextCost(**cost).frames for cost in report["contexts"]} == {2}


@pytest.mark.parametrize("side", ["0", "24", "-16"])
def test_invalid_side_is_refused(artifacts: tuple[CCNet, Path], side: str) -> None:
    result = CliRunner().invoke(app, ["calibrate", "contexts", str(artifacts[1]), "--side", side])
    assert isinstance(result.exception, CCNetError)
    assert "expected a multiple of 16 px" in str(result.exception)
