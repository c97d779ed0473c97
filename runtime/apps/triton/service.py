"""The work of one copy of the model ``ccnet``: request in, cube or projection out; no server is needed to test it."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError, Closeable
from ccnet.runtime.backends.select import BackendName, Precision
from ccnet.runtime.io.frames import Frame, read_frame
from ccnet.runtime.io.srgb import InputSpace
from ccnet.runtime.reconstructor import Reconstructor
from ccnet.runtime.stream.context_policy import ContextPolicy
from ccnet.runtime.tiles.projection import Projection

Array = npt.NDArray[np.float32]
Sequence = int | str

MAX_SEQUENCES = 256
"""Sequences whose context a copy of the model keeps; of a client that left without an end, the oldest goes first."""

MAX_VALUES = 256
"""Largest number K of a projection's values a pixel, which bounds the memory of an answer."""

_WARM_SIDE = 64


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """The parameters of the model ``ccnet`` in ``config.pbtxt``.

    Attributes:
        input_space: Colour space of the frames.
        backend: Library that runs the graphs.
        precision: Precision of ``decode``; None is the backend's default.
        memory: Memory budget of a frame, bytes; None is the default.
        threads: CPU threads of each copy; None is one per core.
        context: Policy of a sequence's context, see ``stream.context_policy``.
        max_megapixels: Largest frame, Mpx.
    """

    input_space: str = "srgb"
    backend: str = "auto"
    precision: str | None = None
    memory: int | None = None
    threads: int | None = None
    context: str = "scene"
    max_megapixels: float = 32.0

    @classmethod
    def parse(cls, texts: Mapping[str, str]) -> ServiceSettings:
        """Return the settings of a model's parameters; a CCNetError names a parameter that is wrong."""
        types = {"memory": int, "threads": int, "max_megapixels": float}
        if unknown := texts.keys() - {field.name for field in fields(cls)}:
            raise CCNetError(f"parameter {min(unknown)!r} is unknown: see ServiceSettings, or run 'ccnet serve export'")
        values: dict[str, Any] = {}
        for name, text in texts.items():
            try:
                values[name] = types.get(name, str)(text)
            except ValueError as error:
                raise CCNetError(f"parameter {name} is {text!r}, expected a number") from error
        return cls(**values)


def open_reconstructor(folder: Path, settings: ServiceSettings, device: int = 0) -> Reconstructor:
    """Return the Reconstructor of an artifact folder with the parameters of the model; ``device`` is a GPU's index."""
    return Reconstructor.open(
        folder,
        input_space=cast(InputSpace, settings.input_space),
        backend=cast(BackendName, settings.backend),
        precision=cast(Precision | None, settings.precision),
        memory=settings.memory,
        threads=settings.threads,
        device=device,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One request.

    Attributes:
        frame: (H, W, 3) uint8, or None.
        image: Bytes of a PNG, JPEG or other picture as (N,) uint8, or None.
        projection: N of ``Projection``, (K, 31) float32; None: the cube is wanted.
        denominator: D of ``Projection``, (K, 31) float32, or None.
        sequence: Number or name of the client's stream; 0 or "" for a frame by itself.
        start: The frame is the first of its sequence.
        end: The frame is the last of its sequence.
    """

    frame: npt.NDArray[Any] | None = None
    image: npt.NDArray[np.uint8] | None = None
    projection: Array | None = None
    denominator: Array | None = None
    sequence: Sequence = 0
    start: bool = False
    end: bool = False


class FrameService(Closeable):
    """Answers requests with one Reconstructor, from one thread. Use it in ``with`` or call ``close``."""

    def __init__(self, folder: Path, settings: ServiceSettings, device: int = 0) -> None:
        """Open an artifact folder and reconstruct a small frame, so that a service that is ready has all in memory.

        Args:
            folder: The artifact folder.
            settings: The parameters of the model.
            device: Index of the GPU, where one is used.
        """
        self._settings = settings
        self._contexts: OrderedDict[Sequence, ContextPolicy] = OrderedDict()
        ContextPolicy(settings.context)  # a wrong policy is an error now, not at the first sequence
        self._reconstruct = open_reconstructor(folder, settings, device)
        try:
            self._reconstruct(np.full((_WARM_SIDE, _WARM_SIDE, 3), 128, np.uint8))
        except BaseException:
            self.close()
            raise

    def __call__(self, request: Request) -> Array:
        """Return the cube (31, H, W) float32, or the projection (K, H, W), of a request's frame."""
        projection = _projection(request)
        frame = self._reconstruct.camera_frame(self._frame(request))
        context = self._context(request, frame)
        if projection is None:
            return self._reconstruct(frame, context)
        return self._reconstruct.project(frame, projection, context)

    def close(self) -> None:
        """Free the backends; harmless when called twice."""
        self._reconstruct.close()

    def _frame(self, request: Request) -> Frame:
        max_pixels = int(self._settings.max_megapixels * 1e6)
        if request.frame is not None and request.image is None:
            if request.frame.ndim == 3 and request.frame.shape[0] * request.frame.shape[1] > max_pixels:
                height, width = request.frame.shape[:2]
                raise CCNetError(f"frame is {width}×{height} px, expected at most {max_pixels / 1e6:g} Mpx; crop it")
            return request.frame
        if request.image is None or request.frame is not None:
            raise CCNetError("the request has both or none of frame and image, expected one of them")
        with tempfile.TemporaryDirectory(prefix="ccnet-") as folder:
            path = Path(folder, "image")
            path.write_bytes(request.image.tobytes())
            try:
                return read_frame(path, max_pixels=max_pixels, as_stored=self._settings.input_space == "camera")
            except CCNetError as error:
                raise CCNetError(str(error).replace(str(path), "image")) from error

    def _context(self, request: Request, frame: Frame) -> Array | None:
        """Return the context of a sequence's frame; None for a frame by itself, which has its own."""
        if not request.sequence:
            return None
        policy = None if request.start else self._contexts.pop(request.sequence, None)
        policy = policy or ContextPolicy(self._settings.context)
        context = policy(self._reconstruct, frame)
        if request.end:
            self._contexts.pop(request.sequence, None)
        else:
            self._contexts[request.sequence] = policy  # the newest is last
            while len(self._contexts) > MAX_SEQUENCES:
                self._contexts.popitem(last=False)
        return context


def _projection(request: Request) -> Projection | None:
    if request.projection is None:
        if request.denominator is not None:
            raise CCNetError("the request has a denominator without a projection, expected both")
        return None
    if (count := len(request.projection)) > MAX_VALUES:
        raise CCNetError(f"projection has {count} rows, expected at most {MAX_VALUES}; send several requests")
    names = tuple(map(str, range(count)))
    return Projection(names, request.projection, request.denominator)
