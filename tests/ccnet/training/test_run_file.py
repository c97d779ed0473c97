"""Resumption of runs with a moving average of the weights, and with measured cameras."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from ccnet.contract import CCNetError
from ccnet.data.camera import Array, Camera
from ccnet.data.measured import MeasuredCameras
from ccnet.data.patches import SceneDataset
from ccnet.model.checkpoint import load_checkpoint
from ccnet.model.config import CCNetConfig
from ccnet.training.recipe import Recipe
from ccnet.training.trainer import Trainer

RECIPE = Recipe(steps=4, batch=2, patch=16, lr=2e-3, evaluate_every=2, save_every=2, average=0.9, rmse_weight=1)

MakeRun = Callable[..., Trainer]


@pytest.fixture
def make_run(
    tmp_path: Path,
    tiny: CCNetConfig,
    camera: Camera,
    make_cube: Callable[..., Array],
    make_scenes: Callable[..., SceneDataset],
) -> MakeRun:
    """make_run(name, recipe, share): a trainer with the camera itself as a measured one."""

    def make(name: str = "run", recipe: Recipe = RECIPE, share: float = 0.5) -> Trainer:
        measured = MeasuredCameras(cameras=(camera,), share=share)
        train = replace(make_scenes(camera, make_cube(20, 24)), measured=measured)
        return Trainer(tmp_path / name, tiny, recipe, train, make_scenes(camera, make_cube(16, 16, 2)))

    return make


def test_run_with_an_average_resumes_to_the_same_weights(make_run: MakeRun) -> None:
    whole, cut = make_run("whole"), make_run("cut")
    losses = [event.loss for event in whole.run()]
    first = [event.loss for event in islice(cut.run(), 3)]  # the third step is lost: the last save was after the second
    rest = [event.loss for event in make_run("cut").run()]
    assert first[:2] + rest == losses
    resumed = make_run("cut")
    for name in ("model", "average"):
        ours, theirs = getattr(resumed, name).state_dict(), getattr(whole, name).state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_averaged_weights_are_validated_and_kept(make_run: MakeRun) -> None:
    trainer = make_run(recipe=replace(RECIPE, steps=2))
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    list(trainer.run())
    assert trainer.average is not None
    kept, average, weights = (
        network.state_dict() for network in (load_checkpoint(trainer.best_file), trainer.average, trainer.model)
    )
    assert all(torch.equal(kept[name], average[name]) for name in kept)
    name = "conv_out.weight"
    assert torch.linalg.norm(average[name] - weights[name]) < torch.linalg.norm(before[name] - weights[name])
    assert not torch.equal(average[name], weights[name])


def test_run_file_names_measured_cameras_and_refuses_another_share(make_run: MakeRun) -> None:
    trainer = make_run()
    next(trainer.run()), trainer._save_run()
    with safe_open(trainer.last_file, framework="pt") as file:
        identity = json.loads(file.metadata()["run"])
    assert identity["train"]["measured"]["share"] == 0.5
    assert [name for name, _ in identity["train"]["measured"]["cameras"]] == ["test"]
    assert identity["recipe"]["average"] == 0.9
    with pytest.raises(CCNetError, match="belongs to another recipe or other data"):
        make_run(share=0.25)
