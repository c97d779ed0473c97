"""A training run in a folder: training, validation, curves and exact resumption."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from ccnet import __version__
from ccnet.contract import CCNetError, make_folder
from ccnet.data.camera import Camera, Imaging
from ccnet.data.materials import Materials
from ccnet.data.measured import MeasuredCameras
from ccnet.data.patches import SceneDataset, TrainingPatches
from ccnet.evaluation.validation import ValidationScore, validate
from ccnet.model import CCNet
from ccnet.model.checkpoint import save_checkpoint, weights_hash
from ccnet.model.config import CCNetConfig

from .curve_file import CURVE_FILE, load_curve, save_curve
from .recipe import Recipe
from .run_file import RUN_FILE, load_run, save_run
from .step import TrainingStep


@dataclass(frozen=True, kw_only=True)
class TrainingEvent:
    """One finished training step.

    Attributes:
        step: Number of steps so far.
        loss: Loss of the step's batch (Eq. 16).
        lr: Learning rate of the step.
        score: Result of the validation after the step, if there was a validation.
    """

    step: int
    loss: float
    lr: float
    score: ValidationScore | None = None


class Trainer:
    """Training run in a folder, which resumes from ``last.safetensors`` on the same trajectory.

    ``best.safetensors`` holds the weights of the best validation. A resumed run ends in the same weights as an
    uninterrupted run, on the same machine with the same number of threads and processes. ``curve.json`` holds the
    score of each validation, and TensorBoard's curves lie in the same folder. Under ``torchrun`` every process
    constructs the same Trainer; the first process validates, saves and writes the curves.

    Args:
        folder: Folder of the run.
        config: Network to train.
        recipe: How to train.
        train: Scenes to learn from.
        val: Scenes to validate on.
        device: Device to compute on.
        start: Network whose weights the run starts from; None for random weights.

    Raises:
        CCNetError: The folder holds a run with another recipe, network or data, or a damaged run; or ``start`` has
            another configuration.
    """

    def __init__(
        self,
        folder: Path,
        config: CCNetConfig,
        recipe: Recipe,
        train: SceneDataset,
        val: SceneDataset,
        device: str = "cpu",
        start: CCNet | None = None,
    ) -> None:
        self.folder, self.recipe, self.val = folder, recipe, val
        self.stopped = False
        torch.manual_seed(recipe.seed)
        self.model = CCNet(config).to(device)
        if start is not None:
            if start.config != config:
                raise CCNetError(_describe_mismatch(start.config, config))
            self.model.load_state_dict(start.state_dict())
        self.average = copy.deepcopy(self.model).requires_grad_(False) if recipe.average else None
        self.step, self.best = 0, ValidationScore(mrae=math.inf, rmse=math.inf, psnr=0.0, sam=math.inf)
        self.curve: dict[int, ValidationScore] = {}
        self.identity = json.dumps(
            {
                "config": config.to_dict(),
                "recipe": recipe.to_dict(),
                "start": weights_hash(start) if start else None,
                "train": _describe_scenes(train),
                "val": _describe_scenes(val),
            }
        )
        self.camera = train.cameras[0].to_entry() if len(train.cameras) == 1 else None
        patches = TrainingPatches(dataset=train, patch=recipe.patch, batch=recipe.batch, seed=recipe.seed)
        make_folder(folder)
        self._training_step = TrainingStep(self.model, recipe, patches, device)
        if self.last_file.exists():
            self._resume()

    @property
    def last_file(self) -> Path:
        """File that the run resumes from."""
        return self.folder / RUN_FILE

    @property
    def best_file(self) -> Path:
        """File of the weights of the best validation."""
        return self.folder / "best.safetensors"

    @property
    def curve_file(self) -> Path:
        """File of the scores of all validations."""
        return self.folder / CURVE_FILE

    @property
    def is_first_process(self) -> bool:
        """True in the process that validates, saves and reports."""
        return self._training_step.rank == 0

    @property
    def has_partners(self) -> bool:
        """True if other processes train the same network."""
        return self._training_step.world_size > 1

    def run(self) -> Iterator[TrainingEvent]:
        """Train to the end of the recipe, or until ``stop``, validating and saving at the recipe's intervals.

        Yields:
            An event after each step.
        """
        recipe = self.recipe
        curves = SummaryWriter(str(self.folder), purge_step=self.step + 1) if self.is_first_process else None
        while self.step < recipe.steps and not self.stopped:
            loss, lr = self._training_step(self.step)
            self.step += 1
            self._update_average()
            score = None
            if curves and (self.step % recipe.evaluate_every == 0 or self.step == recipe.steps):
                score = self._validate()
            event = TrainingEvent(step=self.step, loss=loss, lr=lr, score=score)
            if curves:
                _add_to_curves(curves, event)
            if curves and (score or self.step % recipe.save_every == 0 or self.stopped):
                curves.flush()  # before the save: the curves must hold all steps that a resumed run will not repeat
                self._save_run()
            yield event
        if curves:
            curves.close()

    def stop(self) -> None:
        """End the run after the step that is in work, with a save; from any thread or signal handler."""
        self.stopped = True

    def _validate(self) -> ValidationScore:
        """Validate, add to the curve, and save the weights if no earlier validation had a lower MRAE."""
        model = self.average or self.model
        score = validate(model, self.val)
        if not math.isfinite(score.mrae):
            raise CCNetError(
                f"validation MRAE is {score.mrae} at step {self.step}, expected a finite number:"
                " start another run with a lower --lr, or without --bf16"
            )
        self.curve[self.step] = score
        save_curve(self.curve_file, self.curve)  # before the run is saved: a resumed run repeats no earlier step
        if score.mrae < self.best.mrae:
            self.best = score
            save_checkpoint(self.best_file, model, self._metadata(score), self.camera)
        return score

    def _update_average(self) -> None:
        """Move the averaged weights towards the weights; in the first steps faster, so that the start is forgotten."""
        if self.average is None:
            return
        decay = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        for averaged, weights in zip(self.average.parameters(), self.model.parameters(), strict=True):
            averaged.lerp_(weights.detach(), 1 - decay)

    def _save_run(self) -> None:
        metadata = self._metadata(self.best)
        save_run(self.last_file, self.model, self._training_step.optimizer, metadata, self.average)

    def _metadata(self, score: ValidationScore) -> dict[str, str]:
        """Return the metadata of both files; ``score`` becomes their ``val``."""
        return {
            "step": str(self.step),
            "val": json.dumps(asdict(score)),
            "run": self.identity,
            "made by": f"ccnet {__version__}, torch {torch.__version__}",
        }

    def _resume(self) -> None:
        metadata = load_run(self.last_file, self.model, self._training_step.optimizer, self.identity, self.average)
        self.step, self.best = int(metadata["step"]), ValidationScore(**json.loads(metadata["val"]))
        self.curve = load_curve(self.curve_file, self.step)


def _describe_mismatch(found: CCNetConfig, wanted: CCNetConfig) -> str:
    """Return which fields of two configurations differ, as an error of the weights to start from."""
    names = [field.name for field in fields(CCNetConfig) if getattr(found, field.name) != getattr(wanted, field.name)]
    theirs, asked = (", ".join(f"{name}={getattr(config, name)}" for name in names) for config in (found, wanted))
    return f"the weights to start from have {theirs}, and {asked} is asked for: leave --config out"


def _describe_scenes(scenes: SceneDataset) -> dict[str, Any]:
    """Return the identity of a data set and its cameras, which a resumed run must match."""
    # Only where it is used, so that runs of version 0.1.0 resume
    brightness = {} if scenes.brightness == (1.0, 1.0) else {"brightness": scenes.brightness}
    measured = {} if scenes.measured is None else {"measured": _describe_measured(scenes.measured)}
    variation = {} if scenes.variation is None else {"variation": scenes.variation.share}
    materials = {} if scenes.materials is None else {"materials": _describe_materials(scenes.materials)}
    return (
        brightness
        | measured
        | materials
        | variation
        | {
            "source": scenes.source,
            "scenes": [scene.name for scene in scenes.scenes],
            "cameras": _describe_cameras(scenes.cameras),
            "imaging": _describe_imaging(scenes.imaging),
        }
    )


def _describe_measured(measured: MeasuredCameras) -> dict[str, Any]:
    """Return the share of the measured cameras, and their names and responses, which decide their matrices."""
    return {"share": measured.share, "cameras": _describe_cameras(measured.cameras)}


def _describe_materials(materials: Materials) -> dict[str, Any]:
    """Return the share of the repainted patches, and the hash of the reflectances."""
    return {"share": materials.share, "surfaces": hashlib.sha256(materials.surfaces.tobytes()).hexdigest()}


def _describe_cameras(cameras: Sequence[Camera]) -> list[tuple[str, str]]:
    return [(camera.name, hashlib.sha256(camera.response.tobytes()).hexdigest()) for camera in cameras]


def _describe_imaging(imaging: Imaging) -> str:
    """Return the imaging as version 0.1.0 wrote it into runs, whatever the class is called."""
    return f"Imaging({', '.join(f'{name}={value!r}' for name, value in asdict(imaging).items())})"


def _add_to_curves(curves: SummaryWriter, event: TrainingEvent) -> None:
    curves.add_scalar("train/loss", event.loss, event.step)
    curves.add_scalar("train/lr", event.lr, event.step)
    for name, value in asdict(event.score).items() if event.score else ():
        curves.add_scalar(f"val/{name}", value, event.step)
