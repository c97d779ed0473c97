"""One training step: Adam on one batch, shared by all processes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ccnet.contract import CCNetError
from ccnet.data.patches import TrainingPatches
from ccnet.model import CCNet

from .losses import ccnet_loss
from .processes import rank_and_world_size
from .recipe import Recipe


class TrainingStep:
    """Adam step on one batch, of which each process computes its share.

    Args:
        model: Network to train, already on the device.
        recipe: Learning rate, batch size and gradient clipping.
        patches: Source of the batches.
        device: Device to compute on.

    Raises:
        CCNetError: The batch is not a multiple of the number of processes.
    """

    def __init__(self, model: CCNet, recipe: Recipe, patches: TrainingPatches, device: str) -> None:
        self.model, self.recipe, self.patches, self.device = model, recipe, patches, device
        self.optimizer = torch.optim.Adam(model.parameters(), lr=recipe.lr, betas=(0.9, 0.999), fused=True)
        self.rank, self.world_size = rank_and_world_size()
        if recipe.batch % self.world_size:
            raise CCNetError(f"batch is {recipe.batch}, expected a multiple of the {self.world_size} processes")
        self._scales: dict[int, Tensor] = {}
        self._forward: nn.Module = DistributedDataParallel(model) if self.world_size > 1 else model
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="ccnet-patches")
        self._prefetched_step, self._prefetched = 0, self._prefetch(0)

    def __call__(self, step: int) -> tuple[float, float]:
        """Update the weights once.

        Args:
            step: Number of the step, from 0; it decides the batch and the learning rate.

        Returns:
            The loss over all processes, and the learning rate.

        Raises:
            CCNetError: Loss or gradient is not finite; the weights have not been changed.
        """
        lr = self.recipe.lr_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        frames, cubes, scales, gaps = self._batch(step)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.recipe.bf16):
            estimate = self._forward(frames, scales)
        loss = ccnet_loss(cubes, estimate, gaps=gaps, rmse_weight=self.recipe.rmse_weight)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradient_norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        mean_loss = loss.detach() / self.world_size
        if self.world_size > 1:
            dist.all_reduce(mean_loss)
        if not torch.isfinite(mean_loss + gradient_norm):  # both are equal in all processes, so all of them stop
            raise CCNetError(self._describe_divergence(step, mean_loss.item(), gradient_norm.item()))
        self.optimizer.step()
        return mean_loss.item(), lr

    def _batch(self, step: int) -> tuple[Tensor, Tensor, Tensor | None, bool]:
        """Return this process's frames, cubes and scales of the step, on the device, and True if there are gaps.

        Start to read the next batch.
        """
        if self._prefetched_step != step:
            self._prefetched = self._prefetch(step)
        frames, cubes, scales, gaps = self._prefetched.result()
        self._prefetched_step, self._prefetched = step + 1, self._prefetch(step + 1)
        scales = None if scales is None else scales.to(self.device)
        return frames.to(self.device), cubes.to(self.device), scales, gaps

    def _prefetch(self, step: int) -> Future[tuple[Tensor, Tensor, Tensor | None, bool]]:
        return self._reader.submit(self._read, step)

    def _read(self, step: int) -> tuple[Tensor, Tensor, Tensor | None, bool]:
        """Return what ``_batch`` does, in the memory of the host."""
        share = slice(self.rank, None, self.world_size)
        frames, cubes = self.patches.batch_at(step, share)
        scales = self._frame_scales(self.patches.scenes_at(step, share))
        return torch.from_numpy(frames), torch.from_numpy(cubes), scales, bool(np.isnan(cubes.min()))

    def _frame_scales(self, scenes: Sequence[int]) -> Tensor | None:
        """Return the scales (B, 1, 1, 1) of the scenes' whole frames, which their patches take; None without any."""
        if self.model.brightness is None:
            return None
        for index in set(scenes) - self._scales.keys():
            frame, _ = self.patches.dataset.pair(index)
            self._scales[index] = self.model.frame_scale(torch.from_numpy(frame)[None])
        return torch.cat([self._scales[index] for index in scenes])

    def _describe_divergence(self, step: int, loss: float, gradient_norm: float) -> str:
        scenes = ", ".join(sorted(set(self.patches.scene_names_at(step))))
        return (
            f"loss is {loss} and the norm of its gradient {gradient_norm} at step {step} (seed {self.recipe.seed}),"
            f" with patches of the scenes {scenes}; check these cubes, or start another run --from best.safetensors"
            " of this run with a lower --lr"
        )
