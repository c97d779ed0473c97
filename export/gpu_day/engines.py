"""Engines that the resident pipeline runs instead of TensorRT's: torch's tensors over the addresses that it binds.

An engine's work is a ``Computation``, see ``computations``. A launcher runs it on the pipeline's stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ccnet.contract import BANDS_NM, CONTEXT, CUBE, CUBE_SUM, RGB, CCNetError
from ccnet.runtime.gpu.cuda import Device, OutOfMemoryError, Stream
from ccnet.runtime.gpu.scratch import Scratch

Shape = tuple[int, ...]

Computation = Callable[[Mapping[str, Tensor]], None]
"""Reads the inputs and writes the outputs of ``encode`` or ``decode``, all float32."""


class Place(NamedTuple):
    """A float32 tensor in GPU memory, in C order."""

    address: int
    shape: Shape


class Launcher(Protocol):
    """Runs computations on streams of the driver.

    Attributes:
        torch_device: torch's name of the device whose memory the tensors are in.
    """

    torch_device: str

    def launch(self, stream: Stream, places: Mapping[str, Place], computation: Computation) -> None:
        """Queue a computation on a stream.

        Args:
            stream: The stream, whose device is current.
            places: Where its tensors are.
            computation: Gets them by the same names.
        """


class CudaLauncher:
    """Runs computations on a GPU, in torch.

    The memory between two kernels comes from a pool of its own: no other work gets memory that a captured graph uses.
    """

    def __init__(self, device: Device) -> None:
        """Create the pool.

        Args:
            device: The GPU.
        """
        torch.cuda.init()
        self.torch_device = f"cuda:{device.index}"
        self._tensors: dict[Place, Tensor] = {}
        self._pool = torch.cuda.MemPool()

    def launch(self, stream: Stream, places: Mapping[str, Place], computation: Computation) -> None:
        """Queue a computation on a stream, see ``Launcher``."""
        tensors = {name: self._tensor(place) for name, place in places.items()}
        external: Any = torch.cuda.ExternalStream(stream.handle, device=self.torch_device)
        with torch.inference_mode(), torch.cuda.stream(external), torch.cuda.use_mem_pool(self._pool):
            computation(tensors)

    def _tensor(self, place: Place) -> Tensor:
        """Return the tensor at a place. It owns nothing, so that it may be kept when the memory is freed."""
        if place not in self._tensors:
            self._tensors[place] = _wrap(place, self.torch_device)
        return self._tensors[place]


class _Interface:
    """Memory at an address, as torch takes it without a copy."""

    def __init__(self, place: Place) -> None:
        self.__cuda_array_interface__ = {
            "shape": place.shape,
            "typestr": "<f4",
            "data": (place.address, False),
            "strides": None,
            "version": 2,
        }


def _wrap(place: Place, device: str) -> Tensor:
    tensor = torch.as_tensor(_Interface(place), device=device)
    if tensor.data_ptr() != place.address:
        raise CCNetError("torch copied the pipeline's memory, expected a view of it")
    return tensor


class TensorEngine:
    """An engine whose runs are a computation. It holds nothing that must be freed.

    Attributes:
        name: Library and device, for reports.
        device: The GPU.
        can_be_captured: Whether its runs may be captured as CUDA graphs.
        context_size: Number of values of a context.
        launches: Runs that the host launched kernel by kernel, or captured: a graph that is replayed adds none.
    """

    name: str
    device: Device

    def __init__(
        self,
        name: str,
        device: Device,
        launcher: Launcher,
        open_on: Callable[[Stream], Computation],
        *,
        can_be_captured: bool,
        context_size: int,
    ) -> None:
        """Compute nothing yet.

        Args:
            name: Library and device, for reports.
            device: The GPU.
            launcher: Runs the computation.
            open_on: Returns the computation for a stream.
            can_be_captured: Whether runs may be captured as CUDA graphs.
            context_size: Number of values of a context.
        """
        self.name = name
        self.device = device
        self.can_be_captured = can_be_captured
        self.context_size = context_size
        self.launches = 0
        self._launcher = launcher
        self._open_on = open_on

    def execution_context(self, stream: Stream, scratch: Scratch, runtime_cache: Path | None = None) -> TensorContext:
        """Return a new execution context; the library takes its own scratch memory and keeps no kernels."""
        del scratch, runtime_cache
        return TensorContext(self, self._open_on(stream))

    def enqueue(self, stream: Stream, places: Mapping[str, Place], computation: Computation) -> None:
        """Queue a run; an error of torch is a CCNetError, an OutOfMemoryError if the GPU has too little memory."""
        self.launches += 1
        try:
            self._launcher.launch(stream, places, computation)
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(f"{self.name}: {error}") from error
        except RuntimeError as error:
            raise CCNetError(f"{self.name} failed to run: {error}") from error

    def close(self) -> None:
        """Do nothing: it is freed with its last user."""


class TensorContext:
    """Runs a ``TensorEngine`` with the shapes and addresses that were set."""

    def __init__(self, engine: TensorEngine, computation: Computation) -> None:
        """Set nothing yet. ``TensorEngine.execution_context`` calls this."""
        self._engine = engine
        self._computation = computation
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}

    def set_shapes(self, shapes: Mapping[str, Shape]) -> None:
        """Set the shapes of the inputs: ``rgb`` (1, 3, H, W), and for ``decode`` the context (1, N)."""
        height, width = shapes[RGB][2:]
        context = (1, self._engine.context_size)
        self._shapes = {CONTEXT: context, CUBE: (1, len(BANDS_NM), height, width), CUBE_SUM: (), **shapes}

    def set_address(self, name: str, address: int) -> None:
        """Set the address of a tensor."""
        self._addresses[name] = address

    def enqueue(self, stream: Stream) -> None:
        """Queue a run on a stream."""
        places = {name: Place(address, self._shapes[name]) for name, address in self._addresses.items()}
        self._engine.enqueue(stream, places, self._computation)

    def keep_kernels(self) -> None:
        """Do nothing: there are none to keep."""

    def free_scratch(self) -> None:
        """Do nothing: torch keeps its memory for the next run."""

    def close(self) -> None:
        """Do nothing: it is freed with its last user."""
