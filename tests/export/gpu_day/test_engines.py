"""Engines of torch tensors: their shapes, errors, and what is launched where; on a GPU, real kernels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ccnet.contract import CCNetError
from ccnet.export.gpu_day import engines
from ccnet.export.gpu_day.engines import Computation, CudaLauncher, Launcher, Place, TensorContext, TensorEngine
from ccnet.runtime.gpu.cuda import Device, DeviceMemory, OutOfMemoryError, Stream, has_gpu
from ccnet.runtime.gpu.device_array import DeviceArray
from ccnet.runtime.gpu.scratch import Scratch
from ccnet.runtime.tiles.resident.replay import ReplayedContext

STREAM: Any = SimpleNamespace(handle=77)


class Recorder:
    """A launcher that keeps the places, or raises an error."""

    torch_device = "cpu"

    def __init__(self, error: Exception | None = None) -> None:
        self.places: list[Mapping[str, Place]] = []
        self.error = error

    def launch(self, stream: Stream, places: Mapping[str, Place], computation: Computation) -> None:
        if self.error:
            raise self.error
        self.places.append(places)


def ignore(tensors: Mapping[str, Tensor]) -> None:
    """Compute nothing."""


def context_of(launcher: Launcher, device: Any = None) -> tuple[TensorEngine, TensorContext]:
    engine = TensorEngine("torch", device, launcher, lambda _: ignore, can_be_captured=True, context_size=5)
    return engine, engine.execution_context(STREAM, Scratch())


def test_places_have_the_shapes_of_encode_and_decode() -> None:
    recorder = Recorder()
    engine, context = context_of(recorder)
    context.set_shapes({"rgb": (1, 3, 32, 48)})
    context.set_address("rgb", 16)
    context.set_address("context", 32)
    context.enqueue(STREAM)
    assert recorder.places == [{"rgb": Place(16, (1, 3, 32, 48)), "context": Place(32, (1, 5))}]
    context.set_shapes({"rgb": (1, 3, 16, 16), "context": (1, 5)})
    context.set_address("cube", 64)
    context.set_address("cube_sum", 96)
    context.enqueue(STREAM)
    assert recorder.places[1]["cube"] == Place(64, (1, 31, 16, 16))
    assert recorder.places[1]["cube_sum"] == Place(96, ())
    assert engine.launches == 2


@pytest.mark.parametrize(
    ("error", "kind"), [(torch.OutOfMemoryError("full"), OutOfMemoryError), (RuntimeError("no image"), CCNetError)]
)
def test_errors_of_torch_are_those_that_the_pipeline_handles(error: Exception, kind: type[CCNetError]) -> None:
    _, context = context_of(Recorder(error))
    context.set_shapes({"rgb": (1, 3, 16, 16)})
    with pytest.raises(CCNetError, match=f"torch.*{error}") as caught:
        context.enqueue(STREAM)
    assert type(caught.value) is kind


def test_launcher_computes_on_the_streams_handle_with_memory_of_its_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[str] = []

    @contextlib.contextmanager
    def entered(name: str) -> Iterator[None]:
        inside.append(name)
        yield
        inside.remove(name)

    wrapped: list[Place] = []

    def wrap(place: Place, device: str) -> Tensor:
        wrapped.append(place)
        assert device == "cuda:1"
        return torch.zeros(place.shape)

    cuda = SimpleNamespace(
        init=lambda: None,
        MemPool=lambda: "pool",
        use_mem_pool=entered,
        ExternalStream=lambda handle, device: f"stream {handle} of {device}",
        stream=entered,
    )
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(engines, "_wrap", wrap)
    device: Any = SimpleNamespace(index=1)
    launcher, found = CudaLauncher(device), list[Any]()

    def compute(tensors: Mapping[str, Tensor]) -> None:
        found.append((sorted(tensors), list(inside), torch.is_inference_mode_enabled()))

    for _ in range(2):
        launcher.launch(STREAM, {"rgb": Place(16, (1, 3, 2, 2))}, compute)
    assert found == [(["rgb"], ["stream 77 of cuda:1", "pool"], True)] * 2
    assert (wrapped, inside) == ([Place(16, (1, 3, 2, 2))], [])


@pytest.mark.gpu
@pytest.mark.skipif(not (has_gpu() and torch.cuda.is_available()), reason="needs a GPU and torch for CUDA")
def test_gpu_computes_at_the_drivers_addresses_also_in_a_graph_that_it_captured() -> None:
    with Device() as device, contextlib.ExitStack() as stack:
        size = (1, 3, 16, 16)
        inputs, sums = DeviceMemory(device, 4 * 768), DeviceArray.empty(device, (1,))
        stream = Stream(device)
        for owned in (stream, inputs):
            stack.callback(owned.close)

        def compute(tensors: Mapping[str, Tensor]) -> None:
            tensors["rgb"].add_(1)
            tensors["cube_sum"].copy_((tensors["rgb"] * 2).sum())

        def clear(tensors: Mapping[str, Tensor]) -> None:
            tensors["rgb"].zero_()

        launcher = CudaLauncher(device)
        engine = TensorEngine("torch", device, launcher, lambda _: compute, can_be_captured=True, context_size=5)
        launcher.launch(stream, {"rgb": Place(inputs.address, size)}, clear)
        scratch = Scratch()
        replayed = ReplayedContext(engine.execution_context(stream, scratch), scratch, captures=True)
        stack.callback(replayed.close)
        replayed.set_shapes({"rgb": size})
        replayed.set_addresses({"rgb": inputs.address, "cube_sum": sums.address})
        for run in range(1, 5):
            replayed.enqueue(stream)
            np.testing.assert_array_equal(sums.download(stream), [2.0 * run * 768])
        assert engine.launches == 2, "one ordinary run, and one that was captured"
