"""The network in torch at 482×512: eager in float32, under autocast, and as a CUDA graph."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from ccnet.runtime.quality.tolerances import compare

from .rig import Rig, Row
from .tf32 import frame, network


def run(rig: Rig) -> None:
    """Measure a frame as a whole, ``encode`` and ``decode``; errors are against float32."""
    model, rgb = network(rig), frame(*rig.size((482, 512), (32, 48))).to(rig.device)
    with torch.inference_mode():
        context = model.encode(rgb)
        expected = model(rgb)[0].float().cpu().numpy()
        parts: dict[str, Callable[[], Tensor]] = {
            "full": lambda: model(rgb),
            "encode": lambda: model.encode(rgb),
            "decode": lambda: model.decode(rgb, context),
        }
        for part, work in parts.items():
            _measure(rig, f"{part}, float32", work)
        for dtype in rig.size((torch.float16, torch.bfloat16), (torch.bfloat16,)):

            def autocast(dtype: torch.dtype = dtype) -> Tensor:
                with torch.autocast(rig.device, dtype):
                    return model.decode(rgb, context)

            name = str(dtype).removeprefix("torch.")
            parity = compare(expected, autocast()[0].float().cpu().numpy())
            _measure(rig, f"decode, autocast {name}", autocast, note=str(parity))
        if rig.on_gpu:
            for part, work in parts.items():
                rig.attempt(f"{part}, CUDA graph", "ms", functools.partial(_graph, rig, part, work))
            peak = torch.cuda.max_memory_allocated() / 1e6
            rig.emit(Row(name="most memory that torch held", value=peak, unit="MB"))


def _measure(rig: Rig, name: str, work: Callable[[], Tensor], note: str = "") -> None:
    rig.attempt(name, "ms", lambda: Row(name=name, value=rig.milliseconds(work), unit="ms", note=note))


def _graph(rig: Rig, part: str, work: Callable[[], Tensor]) -> Row:
    """Capture the work once and time its replay: the difference to eager is the host's part."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    return Row(name=f"{part}, CUDA graph", value=rig.milliseconds(graph.replay), unit="ms", note="float32")
