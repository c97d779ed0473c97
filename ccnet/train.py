"""Training: a run folder, a cosine schedule, exact resumption."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ccnet.camera import Array
from ccnet.checkpoint import save_checkpoint
from ccnet.config import CCNetConfig
from ccnet.contract import CCNetError, write_atomic
from ccnet.losses import ccnet_loss
from ccnet.metrics import mrae, psnr
from ccnet.model import CCNet
from ccnet.recipe import Recipe
from ccnet.views import Patches, Views

__all__ = ["Event", "Recipe", "Score", "Trainer", "infer", "validate"]


@dataclass(frozen=True, kw_only=True)
class Score:
    """Mean over validation scenes: MRAE (offset 0.02) and PSNR in dB."""

    mrae: float
    psnr: float


@dataclass(frozen=True, kw_only=True)
class Event:
    """One training step as the caller sees it; score is set after a validation."""

    step: int
    loss: float
    lr: float
    score: Score | None = None


def infer(model: CCNet, frame: Array) -> Array:
    """frame (3, H, W) → cube (31, H, W) in float32, on whatever device the model is."""
    rgb = torch.from_numpy(frame)[None].to(next(model.parameters()).device)
    with torch.inference_mode():
        cube: Array = model(rgb)[0].cpu().numpy()
    return cube


def validate(model: CCNet, views: Views) -> Score:
    """Whole scenes, one at a time, in float32."""
    pairs = [(cube, infer(model, frame)) for frame, cube in map(views.pair, range(len(views)))]
    return Score(mrae=float(np.mean([mrae(*p) for p in pairs])), psnr=float(np.mean([psnr(*p) for p in pairs])))


class Trainer:
    """A training run in a folder: ``last.safetensors`` resumes it, ``best.safetensors`` holds its best weights.

    A run that finds its own ``last.safetensors`` goes on from there on the same trajectory (same machine, same
    number of threads); one made with another recipe or configuration is refused.
    """

    def __init__(
        self,
        folder: Path,
        config: CCNetConfig,
        recipe: Recipe,
        train: Views,
        val: Views,
        device: str = "cpu",
    ) -> None:
        self.folder, self.recipe, self.val, self.device = folder, recipe, val, device
        self.patches = Patches(views=train, patch=recipe.patch, batch=recipe.batch, seed=recipe.seed)
        torch.manual_seed(recipe.seed)
        self.model = CCNet(config).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=recipe.lr, betas=(0.9, 0.999))
        self.step, self.best = 0, Score(mrae=math.inf, psnr=0.0)
        self.identity = json.dumps(
            {"config": config.to_dict(), "recipe": asdict(recipe), "cameras": [camera.name for camera in train.cameras]}
        )
        folder.mkdir(parents=True, exist_ok=True)
        if self.last.exists():
            self._resume()

    @property
    def last(self) -> Path:
        return self.folder / "last.safetensors"

    def run(self) -> Iterator[Event]:
        """Train to the end of the recipe, an event a step; saves as it goes."""
        while self.step < self.recipe.steps:
            loss, lr = self._update()
            self.step += 1
            score = None
            if self.step % self.recipe.evaluate_every == 0 or self.step == self.recipe.steps:
                score = self._evaluate()
            yield Event(step=self.step, loss=loss, lr=lr, score=score)

    def _update(self) -> tuple[float, float]:
        recipe = self.recipe
        lr = recipe.lr_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        frames, cubes = (torch.from_numpy(array).to(self.device) for array in self.patches.at(self.step))
        # oneDNN's and cuDNN's depthwise gradients are several times faster with channels last
        frames = frames.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device, torch.bfloat16, enabled=recipe.bf16):
            estimate = self.model(frames)
        loss = ccnet_loss(cubes, estimate)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        if not torch.isfinite(loss + norm):
            raise CCNetError(
                f"loss is {loss.item()} and its gradient's norm {norm.item()} at step {self.step} (batch of seed "
                f"{recipe.seed}); the run goes on from its last validation: lower --lr or train in float32"
            )
        self.optimizer.step()
        return loss.item(), lr

    def _evaluate(self) -> Score:
        score = validate(self.model, self.val)
        if not math.isfinite(score.mrae):
            raise CCNetError(f"validation MRAE is {score.mrae} at step {self.step}: lower --lr or train in float32")
        if score.mrae < self.best.mrae:
            self.best = score
            save_checkpoint(self.folder / "best.safetensors", self.model, self._notes(score))
        self._save()
        return score

    def _notes(self, score: Score) -> dict[str, str]:
        return {"step": str(self.step), "val": json.dumps(asdict(score)), "run": self.identity}

    def _save(self) -> None:
        tensors: dict[str, Tensor] = {f"model.{k}": v.cpu().contiguous() for k, v in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{key}": value.cpu().contiguous() for key, value in state.items()}
        write_atomic(self.last, save(tensors, self._notes(self.best)))

    def _resume(self) -> None:
        try:
            with safe_open(self.last, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError) as error:
            raise CCNetError(f"{self.last}: cannot be resumed ({error}); delete it to start again") from error
        if metadata.get("run") != self.identity:
            raise CCNetError(f"{self.last}: belongs to another recipe; give its own options or another --out folder")
        self.model.load_state_dict(_strip(tensors, "model."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _strip(tensors, "adam.").items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.step, self.best = int(metadata["step"]), Score(**json.loads(metadata["val"]))


def _strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
