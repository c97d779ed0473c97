"""Training: a run folder, a cosine schedule, exact resumption, one process or several."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter

from ccnet import __version__
from ccnet.contract import CCNetError, make_folder, write_atomic
from ccnet.data.camera import Array
from ccnet.data.patches import SceneDataset, TrainingPatches
from ccnet.metrics import mrae, psnr, rmse, sam
from ccnet.model import CCNet
from ccnet.model.checkpoint import save_checkpoint, weights_hash
from ccnet.model.config import CCNetConfig

from .losses import ccnet_loss
from .recipe import Recipe

__all__ = ["Event", "Recipe", "Score", "Trainer", "infer", "planned_steps", "process_group", "steps_within", "validate"]


LAST = "last.safetensors"
_MADE_BY = f"ccnet {__version__}, torch {torch.__version__}"


@dataclass(frozen=True, kw_only=True)
class Score:
    """Mean over validation scenes: MRAE (offset 0.02), RMSE, PSNR in dB, SAM in degrees."""

    mrae: float
    rmse: float
    psnr: float
    sam: float


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


def validate(model: CCNet, views: SceneDataset) -> Score:
    """Whole scenes, one at a time, in float32."""
    figures = []
    for frame, cube in map(views.pair, range(len(views))):
        estimate = infer(model, frame)
        figures.append([metric(cube, estimate) for metric in (mrae, rmse, psnr, sam)])
    means = np.mean(figures, axis=0).tolist()
    return Score(**dict(zip(("mrae", "rmse", "psnr", "sam"), means, strict=True)))


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """This process's device; under torchrun, it works with its siblings for as long as the context lasts."""
    if not dist.is_torchelastic_launched():
        yield device
        return
    gpu = device == "cuda"
    local = int(os.environ["LOCAL_RANK"])
    if gpu:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield f"cuda:{local}" if gpu else device
    finally:
        dist.destroy_process_group()


def steps_within(
    minutes: float, config: CCNetConfig, recipe: Recipe, train: SceneDataset, val: SceneDataset, device: str
) -> int:
    """How many steps a time budget holds, validations included, by timing three steps and one validation scene."""
    if not math.isfinite(minutes):
        raise CCNetError(f"minutes is {minutes}, expected a time budget that ends")
    patches = TrainingPatches(views=train, patch=recipe.patch, batch=recipe.batch, seed=recipe.seed)
    update = _Update(CCNet(config).to(device), recipe, patches, device)
    update(0)  # pays for the first use of everything
    started = time.perf_counter()
    for step in range(1, 4):
        update(step)
    stepped = time.perf_counter()
    infer(update.model, val.pair(0)[0])
    validation = (time.perf_counter() - stepped) * len(val)
    steps = [max(1, int(60 * minutes / ((stepped - started) / 3 + validation / recipe.evaluate_every)))]
    if dist.is_initialized():
        dist.broadcast_object_list(steps)  # clocks differ, and the run is one
    return steps[0]


class _Update:
    """One step of Adam on one batch, of which each process computes its share."""

    def __init__(self, model: CCNet, recipe: Recipe, patches: TrainingPatches, device: str) -> None:
        self.model, self.recipe, self.patches, self.device = model, recipe, patches, device
        self.optimizer = torch.optim.Adam(model.parameters(), lr=recipe.lr, betas=(0.9, 0.999), fused=True)
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if recipe.batch % self.world:
            raise CCNetError(f"batch is {recipe.batch}, expected a multiple of the {self.world} processes")
        self.parallel: nn.Module = DistributedDataParallel(model) if self.world > 1 else model
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="ccnet-patches")
        self._next = self._read(0)

    def _read(self, step: int) -> Any:
        share = slice(self.rank, None, self.world)
        return step, self._reader.submit(self.patches.at, step, share)

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step, on the device; the next one is read meanwhile."""
        if self._next[0] != step:
            self._next = self._read(step)
        arrays = self._next[1].result()
        self._next = self._read(step + 1)
        frames, cubes = (torch.from_numpy(array).to(self.device) for array in arrays)
        return frames, cubes

    def __call__(self, step: int) -> tuple[float, float]:
        """Loss and learning rate of the step; CCNetError, before anything is updated, where it is not finite."""
        recipe, lr = self.recipe, self.recipe.lr_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        frames, cubes = self._batch(step)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=recipe.bf16):
            estimate = self.parallel(frames)
        loss = ccnet_loss(cubes, estimate)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        total = loss.detach() / self.world
        if self.world > 1:
            dist.all_reduce(total)
        if not torch.isfinite(total + norm):  # both are the same in all processes, so all of them stop
            scenes = ", ".join(sorted(set(self.patches.scenes_at(step))))
            raise CCNetError(
                f"loss is {total.item()} and its gradient's norm {norm.item()} at step {step} (seed {recipe.seed}), of"
                f" scenes {scenes}; look at these, or start another run --from its best.safetensors with a lower --lr"
            )
        self.optimizer.step()
        return total.item(), lr


class Trainer:
    """A training run in a folder: ``last.safetensors`` resumes it, ``best.safetensors`` holds its best weights.

    A run that finds its own ``last.safetensors`` goes on from there on the same trajectory (same machine, same
    number of threads and processes); one made with another recipe, configuration or data is refused. Curves for
    TensorBoard lie beside them. Under ``torchrun`` every process builds the same Trainer; the first one validates,
    saves and writes the curves.
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
        torch.manual_seed(recipe.seed)
        self.model = CCNet(config).to(device)
        if start is not None:
            if start.config != config:
                raise CCNetError(f"the weights to start from are of {start.config}, expected {config}: see --config")
            self.model.load_state_dict(start.state_dict())
        self.step, self.best = 0, Score(mrae=math.inf, rmse=math.inf, psnr=0.0, sam=math.inf)
        self.identity = json.dumps(
            {
                "config": config.to_dict(),
                "recipe": asdict(recipe),
                "start": weights_hash(start) if start else None,
                "train": _describe(train),
                "val": _describe(val),
            }
        )
        self.camera = train.cameras[0] if len(train.cameras) == 1 else None
        patches = TrainingPatches(views=train, patch=recipe.patch, batch=recipe.batch, seed=recipe.seed)
        make_folder(folder)
        self.update = _Update(self.model, recipe, patches, device)
        if self.last.exists():
            self._resume()

    @property
    def last(self) -> Path:
        return self.folder / LAST

    def run(self) -> Iterator[Event]:
        """Train to the end of the recipe, an event a step; saves as it goes."""
        recipe = self.recipe
        curves = SummaryWriter(str(self.folder), purge_step=self.step + 1) if self.update.rank == 0 else None
        while self.step < recipe.steps:
            loss, lr = self.update(self.step)
            self.step += 1
            score = None
            if curves and (self.step % recipe.evaluate_every == 0 or self.step == recipe.steps):
                score = self._evaluate()
            event = Event(step=self.step, loss=loss, lr=lr, score=score)
            if curves:
                _plot(curves, event)
            if curves and (score or self.step % recipe.save_every == 0):
                curves.flush()  # before the save: what a resumed run does not train again is on the curves
                self._save()
            yield event
        if curves:
            curves.close()

    def _evaluate(self) -> Score:
        score = validate(self.model, self.val)
        if not math.isfinite(score.mrae):
            why = f"validation MRAE is {score.mrae} at step {self.step}"
            raise CCNetError(f"{why}: start another run with a lower --lr, or without --bf16")
        if score.mrae < self.best.mrae:
            self.best = score
            save_checkpoint(self.folder / "best.safetensors", self.model, self._notes(score), self.camera)
        return score

    def _notes(self, score: Score) -> dict[str, str]:
        return {"step": str(self.step), "val": json.dumps(asdict(score)), "run": self.identity, "made by": _MADE_BY}

    def _save(self) -> None:
        tensors: dict[str, Tensor] = {f"model.{k}": v.cpu().contiguous() for k, v in self.model.state_dict().items()}
        for index, state in self.update.optimizer.state_dict()["state"].items():
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
            raise CCNetError(
                f"{self.last}: belongs to another recipe or other data; give its own options or another --out folder"
            )
        self.model.load_state_dict(_strip(tensors, "model."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _strip(tensors, "adam.").items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = tensor
        optimizer = self.update.optimizer
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        self.step, self.best = int(metadata["step"]), Score(**json.loads(metadata["val"]))


def planned_steps(folder: Path) -> int | None:
    """The steps of the run in a folder, which a time budget was measured for once; None where no run was saved."""
    last = folder / LAST
    if not last.exists():
        return None
    try:
        with safe_open(last, framework="pt") as file:
            return int(json.loads(file.metadata()["run"])["recipe"]["steps"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CCNetError(f"{last}: cannot be resumed ({error}); delete it to start again") from error


def _describe(views: SceneDataset) -> dict[str, Any]:
    """What a resumed run must find again: scenes and who saw them."""
    return {
        "source": views.source,
        "scenes": [scene.name for scene in views.scenes],
        "cameras": [(camera.name, hashlib.sha256(camera.response.tobytes()).hexdigest()) for camera in views.cameras],
        "imaging": repr(views.imaging),
    }


def _plot(curves: SummaryWriter, event: Event) -> None:
    curves.add_scalar("train/loss", event.loss, event.step)
    curves.add_scalar("train/lr", event.lr, event.step)
    for name, value in asdict(event.score).items() if event.score else ():
        curves.add_scalar(f"val/{name}", value, event.step)


def _strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
