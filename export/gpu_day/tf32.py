"""TF32 on and off in torch against the table of tolerances, by a frame."""

from __future__ import annotations

import torch
from torch import Tensor

from ccnet.model import CCNet
from ccnet.model.checkpoint import load_checkpoint
from ccnet.model.config import CCNetConfig
from ccnet.ops.kernels import reference_ops
from ccnet.runtime.quality.tolerances import TOLERANCES, compare

from .rig import Rig, Row

_LIMIT = TOLERANCES["fp32"].max_abs


def network(rig: Rig) -> CCNet:
    """Return the network with the shipped weights on the device; a tiny one in a rehearsal."""
    model = load_checkpoint() if rig.on_gpu else CCNet(CCNetConfig(units=1))
    return model.eval().to(rig.device)


def frame(height: int, width: int) -> Tensor:
    """Return a frame (1, 3, H, W) in [0, 1] of smooth colours with edges, the same each time."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, -(-height // 16), -(-width // 16), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    blocks = coarse.repeat_interleave(16, 2).repeat_interleave(16, 3)[..., :height, :width]
    return (0.7 * smooth + 0.3 * blocks).clamp(0, 1)


def run(rig: Rig) -> None:
    """Compare context and cube of a frame with the CPU's in float32, with TF32 off, in convolutions, and everywhere."""
    rgb = frame(*rig.size((482, 512), (32, 48)))
    model = network(rig)
    with torch.inference_mode(), reference_ops():
        expected = [tensor.numpy() for tensor in model.cpu().run(rgb, None)]
    model.to(rig.device)
    for name, convolutions, products in (("off", False, False), ("in convolutions", True, False), ("on", True, True)):
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.backends.cuda.matmul.allow_tf32 = products
        with torch.inference_mode():
            cube, context = (tensor.cpu().numpy() for tensor in model.run(rgb.to(rig.device), None))
        parity = compare(expected[0][0], cube[0])
        rig.emit(Row(name=f"cube, TF32 {name}", value=parity.max_abs, unit="", target=_LIMIT, note=str(parity)))
        distance = float(abs(context - expected[1]).max())
        rig.emit(Row(name=f"context, TF32 {name}", value=distance, unit="", target=_LIMIT))
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
