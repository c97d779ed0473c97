"""The training step and its parts: CCNet's kernels against the paper's loop in torch's own layers through autograd."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ccnet.contract import BANDS_NM
from ccnet.model import CCNet
from ccnet.model.blocks import NeSCM
from ccnet.model.config import CCNetConfig
from ccnet.ops.kernels import reference_ops
from ccnet.ops.scan import STREAMS, scan, scan_reference
from ccnet.training.losses import ccnet_loss
from ccnet.training.recipe import Recipe

from .timing import Measurement, take_turns

REFERENCE, CCNET = "reference", "ccnet"
"""The two variants: the paper's loop in torch's own layers, and CCNet's operators."""

Works = Mapping[str, Callable[[], object]]


def measure(name: str, works: Works, repeats: int) -> Measurement:
    """Time both variants of a case in turns."""
    return Measurement(name=name, timings=take_turns(works, repeats)[0])


def cases(config: CCNetConfig, patch: int, batches: Sequence[int]) -> Iterator[tuple[str, Works]]:
    """Yield what is compared, as (name, works by variant).

    Args:
        config: The network.
        patch: Side of a patch, px.
        batches: Patches in a training step; each number is a case.

    Yields:
        The training steps; then for a single patch NeSCM at its three scales, and the scan alone.
    """
    torch.manual_seed(0)
    for batch in batches:
        yield _step(config, patch, batch)
    for scale in (1, 2, 4):
        yield _nescm(config, scale, patch)
    yield _scan(config, patch)


def with_reference_loop(model: CCNet) -> CCNet:
    """Return a copy whose NeSCMs are the paper's loop; ``reference_ops()`` makes the rest of it torch's own."""
    replaced = copy.deepcopy(model)
    for part in replaced.modules():
        if isinstance(part, NeSCM):
            part.forward = part.reference_loop  # type: ignore[method-assign]
    return replaced


def _step(config: CCNetConfig, patch: int, batch: int) -> tuple[str, Works]:
    """Forward, loss, backward and Adam of the whole network; the reference with torch's own of each."""
    model = CCNet(config)
    reference = with_reference_loop(model)
    frames, cubes = torch.rand(batch, 3, patch, patch), torch.rand(batch, len(BANDS_NM), patch, patch)

    def updates(model: CCNet, fused: bool | None = None) -> Callable[[], object]:
        optimizer = torch.optim.Adam(model.parameters(), lr=Recipe().lr, fused=fused)

        def update() -> None:
            optimizer.zero_grad(set_to_none=True)
            ccnet_loss(cubes, model(frames)).backward()
            optimizer.step()

        return update

    name = f"training step\n({batch}, 3, {patch}, {patch})"
    # Adam is fused as in ``ccnet train``
    return name, {REFERENCE: reference_ops()(updates(reference)), CCNET: updates(model, fused=True)}


def _nescm(config: CCNetConfig, scale: int, patch: int) -> tuple[str, Works]:
    shape = 1, scale * config.width, patch // scale, patch // scale
    part = NeSCM(shape[1], config)
    x = torch.randn(shape, requires_grad=True)
    grad, leaves = torch.randn(shape), [x, *part.parameters()]
    works: dict[str, Callable[..., Tensor]] = {REFERENCE: part.reference_loop, CCNET: part}
    return f"NeSCM\n{shape}", {key: _backward(function, [x], leaves, grad) for key, function in works.items()}


def _scan(config: CCNetConfig, patch: int) -> tuple[str, Works]:
    bands = config.width
    inputs = [
        tensor.requires_grad_()
        for tensor in (torch.randn(1, 1, bands, patch, patch), torch.randn(2, 1, 2), torch.randn(2, 1))
    ]
    grad = torch.randn(1, STREAMS, 1, bands, patch, patch)
    works = {REFERENCE: scan_reference, CCNET: scan}
    name = f"scan\n{tuple(inputs[0].shape)}"
    return name, {key: _backward(function, inputs, inputs, grad) for key, function in works.items()}


def _backward(
    function: Callable[..., Tensor], inputs: list[Tensor], leaves: list[Tensor], grad: Tensor
) -> Callable[[], object]:
    return lambda: torch.autograd.grad(function(*inputs), leaves, grad)
