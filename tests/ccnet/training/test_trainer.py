"""The trainer learns, resumes on the same trajectory, and stops at losses that are not finite."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from ccnet.contract import CCNetError
from ccnet.data.camera import Array, Camera
from ccnet.data.patches import SceneDataset
from ccnet.evaluation.validation import validate
from ccnet.metrics import mrae, psnr
from ccnet.model import CCNet
from ccnet.model.checkpoint import load_checkpoint
from ccnet.model.config import CCNetConfig
from ccnet.training import budget, step
from ccnet.training.budget import steps_within
from ccnet.training.curve_file import save_curve
from ccnet.training.recipe import Recipe
from ccnet.training.run_file import planned_steps
from ccnet.training.trainer import Trainer, TrainingEvent

MakeCube = Callable[..., Array]
MakeScenes = Callable[..., SceneDataset]
MakeTrainer = Callable[..., Trainer]
RECIPE = Recipe(steps=5, batch=2, patch=16, lr=2e-3, evaluate_every=2, save_every=2)


@pytest.fixture
def make(
    tmp_path: Path, tiny: CCNetConfig, make_cube: MakeCube, make_scenes: MakeScenes, camera: Camera
) -> MakeTrainer:
    """make(name, recipe): a trainer whose folder has this name."""

    def trainer(
        name: str = "run",
        recipe: Recipe = RECIPE,
        config: CCNetConfig = tiny,
        camera: Camera = camera,
        start: CCNet | None = None,
    ) -> Trainer:
        train = make_scenes(camera, make_cube(20, 24), make_cube(16, 32, 1))
        return Trainer(tmp_path / name, config, recipe, train, make_scenes(camera, make_cube(16, 16, 2)), start=start)

    return trainer


def test_loss_falls(make: MakeTrainer) -> None:
    events = list(make(recipe=replace(RECIPE, steps=24, evaluate_every=24)).run())
    losses = [event.loss for event in events]
    assert [event.step for event in events] == list(range(1, 25))
    assert np.mean(losses[-4:]) < 0.75 * np.mean(losses[:4])
    assert events[0].lr == 2e-3 > events[-1].lr


def test_validation_follows_the_interval_and_the_last_step(make: MakeTrainer) -> None:
    assert [event.step for event in make().run() if event.score] == [2, 4, 5]


def test_interrupted_run_resumes_to_the_same_weights(make: MakeTrainer) -> None:
    whole = list(make("whole").run())
    first = list(islice(make("cut").run(), 3))  # the third step is lost: the last validation was after the second
    rest = list(make("cut").run())
    assert [event.step for event in rest] == [3, 4, 5]
    assert first[:2] + rest == whole
    for name in ("last.safetensors", "best.safetensors"):
        assert contents(make("cut").folder / name) == contents(make("whole").folder / name)


def test_normalising_network_resumes_and_learns_under_the_scales_of_whole_frames(
    make: MakeTrainer, tiny: CCNetConfig
) -> None:
    config = replace(tiny, normalise=True)
    trainer = make("whole", config=config)
    scenes, seen = trainer._training_step.patches.dataset, []
    trainer.model.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[1:]))
    list(trainer.run())
    whole = {trainer.model.frame_scale(torch.from_numpy(scenes.pair(i)[0])[None]).item() for i in range(len(scenes))}
    assert {scale for batch in seen for scale in batch.flatten().tolist()} == whole
    assert len(whole) == 2
    list(islice(make("cut", config=config).run(), 3))
    list(make("cut", config=config).run())
    assert contents(make("cut", config=config).last_file) == contents(trainer.last_file)


def contents(path: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    """Metadata and tensors, bit for bit; safetensors orders the metadata at random."""
    with safe_open(path, framework="np") as file:
        return file.metadata(), {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


def test_frequent_saves_keep_more_steps(make: MakeTrainer) -> None:
    list(islice(make(recipe=replace(RECIPE, evaluate_every=5, save_every=1)).run(), 3))
    assert make(recipe=replace(RECIPE, evaluate_every=5, save_every=1)).step == 3


def test_run_can_start_from_weights(make: MakeTrainer, network: CCNet) -> None:
    trainer = make(recipe=replace(RECIPE, lr=0, final_lr=0), start=network)
    list(trainer.run())
    expected = network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in trainer.model.state_dict().items())


def test_time_budget_becomes_steps(
    make_scenes: MakeScenes, make_cube: MakeCube, camera: Camera, tiny: CCNetConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = make_scenes(camera, make_cube(20, 24))
    clock = iter([10.0, 16.0, 17.0])  # three steps take 6 s, a scene's validation takes 1 s
    monkeypatch.setattr(budget.time, "perf_counter", lambda: next(clock))
    assert steps_within(2, tiny, RECIPE, scenes, scenes, "cpu") == 120 / (2 + 1 / RECIPE.evaluate_every)


def test_planned_steps_are_read_from_a_saved_run(make: MakeTrainer) -> None:
    trainer = make()
    assert planned_steps(trainer.folder) is None
    list(islice(trainer.run(), 3))
    assert planned_steps(trainer.folder) == RECIPE.steps
    trainer.last_file.write_bytes(b"damaged")
    with pytest.raises(CCNetError, match="cannot be resumed"):
        planned_steps(trainer.folder)


def test_curves_are_written_for_tensorboard(make: MakeTrainer) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = make()
    events = list(trainer.run())
    curves = EventAccumulator(str(trainer.folder)).Reload()
    assert [point.step for point in curves.Scalars("train/loss")] == [1, 2, 3, 4, 5]
    assert [point.value for point in curves.Scalars("val/psnr")] == pytest.approx(
        [event.score.psnr for event in events if event.score]
    )


def test_finished_run_does_nothing(make: MakeTrainer) -> None:
    list(make().run())
    again = make()
    assert again.step == 5
    assert list(again.run()) == []


def test_curve_holds_each_validation_once_after_an_interruption(make: MakeTrainer) -> None:
    whole = make("whole")
    list(whole.run())
    assert [*whole.curve] == [2, 4, 5]
    assert whole.curve[5] == validate(whole.model, whole.val)

    interrupted = make("interrupted")
    list(islice(interrupted.run(), 3))  # saved at step 2
    after_next = {**interrupted.curve, 4: interrupted.best}
    save_curve(interrupted.curve_file, after_next)  # as if it had ended between the validation and the save at step 4
    resumed = make("interrupted")
    assert [*resumed.curve] == [2]
    list(resumed.run())
    assert resumed.curve_file.read_bytes() == whole.curve_file.read_bytes()
    assert make("interrupted").curve == whole.curve


def test_damaged_curve_is_refused(make: MakeTrainer) -> None:
    trainer = make()
    list(islice(trainer.run(), 2))
    for damage in ("", "[1]", '[{"step": 2}]', "{}x"):
        trainer.curve_file.write_text(damage)
        with pytest.raises(CCNetError, match=r"curve.json: cannot be read .*; delete it to continue without"):
            make()


def test_best_file_holds_the_weights_of_the_best_validation(make: MakeTrainer) -> None:
    trainer = make()
    scores = [event.score for event in trainer.run() if event.score]
    best = trainer.folder / "best.safetensors"
    assert trainer.best == min(scores, key=lambda score: score.mrae)
    assert validate(load_checkpoint(best), trainer.val) == trainer.best
    with safe_open(best, framework="pt") as file:
        assert json.loads(file.metadata()["val"]) == asdict(trainer.best)


def test_score_is_the_mean_over_scenes(
    make: MakeTrainer, make_cube: MakeCube, make_scenes: MakeScenes, camera: Camera
) -> None:
    trainer = make()
    cubes = (make_cube(16, 16, 5), make_cube(17, 20, 6))
    with torch.inference_mode():
        estimates = [trainer.model(torch.from_numpy(camera.frame(cube))[None])[0].numpy() for cube in cubes]
    score = validate(trainer.model, make_scenes(camera, *cubes))
    assert score.mrae == pytest.approx(np.mean([mrae(*pair) for pair in zip(cubes, estimates, strict=True)]))
    assert score.psnr == pytest.approx(np.mean([psnr(*pair) for pair in zip(cubes, estimates, strict=True)]))


def test_folder_of_another_run_is_refused(make: MakeTrainer, camera: Camera) -> None:
    list(islice(make().run(), 2))
    for other in (
        lambda: make(recipe=replace(RECIPE, lr=1e-3)),
        lambda: make(recipe=replace(RECIPE, seed=1)),
        lambda: make(config=CCNetConfig(units=2)),
        lambda: make(camera=replace(camera, name="other")),
        lambda: make(camera=replace(camera, response=camera.response[:, ::-1])),
        lambda: make(start=CCNet(CCNetConfig(units=1))),
    ):
        with pytest.raises(CCNetError, match=r"last\.safetensors: belongs to another recipe or other data"):
            other()
    assert make().step == 2


def test_damaged_run_is_refused(make: MakeTrainer) -> None:
    trainer = make()
    list(islice(trainer.run(), 2))
    trainer.last_file.write_bytes(trainer.last_file.read_bytes()[:-1])
    with pytest.raises(CCNetError, match=r"cannot be resumed .* delete it to start again"):
        make()


@pytest.mark.parametrize("not_finite", ["loss", "gradient"])
def test_loss_that_is_not_finite_stops_the_run_before_the_update(
    make: MakeTrainer, monkeypatch: pytest.MonkeyPatch, not_finite: str
) -> None:
    trainer = make()
    events: list[TrainingEvent] = list(islice(trainer.run(), 3))
    before = [parameter.clone() for parameter in trainer.model.parameters()]

    def broken_loss(truth: torch.Tensor, estimate: torch.Tensor, *, gaps: bool, rmse_weight: float) -> torch.Tensor:
        if not_finite == "loss":
            return estimate.mean() * torch.nan
        return (estimate * 0).abs().sqrt().sum()  # 0, with an infinite slope

    monkeypatch.setattr(step, "ccnet_loss", broken_loss)
    with pytest.raises(
        CCNetError, match=r"nan at step 3 \(seed 0\), with patches of the scenes [01].*; .* lower --lr"
    ) as caught:
        next(trainer.run())
    assert len(events) == 3
    assert "\n" not in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
    assert make().step == 2


def test_bfloat16_trains_and_validates_in_float32(make: MakeTrainer) -> None:
    (event,) = make(recipe=replace(RECIPE, steps=1, bf16=True)).run()
    (exact,) = make("exact", recipe=replace(RECIPE, steps=1)).run()
    assert event.loss != exact.loss
    assert event.loss == pytest.approx(exact.loss, rel=0.05)
    assert event.score is not None
    assert exact.score is not None
    assert event.score.mrae == pytest.approx(exact.score.mrae, rel=0.2)


def test_run_file_keeps_the_keys_of_version_0_1_0(make: MakeTrainer, camera: Camera) -> None:
    """A run that version 0.1.0 saved resumes only if these strings are equal."""
    trainer = make()
    list(islice(trainer.run(), 2))
    with safe_open(trainer.last_file, framework="pt") as file:
        metadata, names = file.metadata(), list(file.keys())
    assert metadata.keys() == {"step", "val", "run", "made by"}
    response = hashlib.sha256(camera.response.tobytes()).hexdigest()
    imaging = "Imaging(exposure=(1.0, 1.0), full_well=None, read_noise=0.0, eight_bit=False, jpeg=None)"
    assert json.loads(metadata["run"]) == {
        "config": {
            "width": 32, "units": 1, "groups": 4, "patch": 16, "expansion": 4, "inter_spectral": "ccnet",
            "continuity": "nescm", "fusion": "paf",
        },
        "recipe": {
            "steps": 5, "batch": 2, "patch": 16, "lr": 2e-3, "final_lr": 1e-5, "warmup": 0, "clip": 1.0, "bf16": False,
            "seed": 0, "evaluate_every": 2, "save_every": 2,
        },
        "start": None,
        "train": {"source": "", "scenes": ["0", "1"], "cameras": [["test", response]], "imaging": imaging},
        "val": {"source": "", "scenes": ["0"], "cameras": [["test", response]], "imaging": imaging},
    }  # fmt: skip
    parameters = [name for name, _ in trainer.model.named_parameters()]
    assert {f"model.{name}" for name in parameters} <= set(names)
    assert {f"adam.{i}.{key}" for i in range(len(parameters)) for key in ("step", "exp_avg", "exp_avg_sq")} <= set(
        names
    )
    assert json.loads(metadata["val"]).keys() == {"mrae", "rmse", "psnr", "sam"}
