"""Frame in, cube out: the context once from the whole frame, then the cube window by window.

Legend: a frame is (H, W, 3) uint8, uint16 or float32 in [0, 1]; a cube is (31, H, W) float32, bands ascending from 400
to 700 nm, reflectance-like; the context is (1, N) float32, all that a window must know of the rest of its frame.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CONTEXT, CUBE, FRAME_SCALE, RGB, CCNetError, Manifest, padded_size, prefix_errors
from ccnet.runtime.backends.out_of_memory import OutOfMemoryError
from ccnet.runtime.backends.select import Backend, BackendName, Precision, Selection, select
from ccnet.runtime.io.arrays import as_frame
from ccnet.runtime.io.cubes import open_cube
from ccnet.runtime.io.frames import Frame, block_mean, rgb_tensor

from .loading import SizeLimits, open_backend
from .projection import Projection
from .tiling import Span, check_tile, crop, plan

Array = npt.NDArray[np.float32]

_logger = logging.getLogger(__name__)

ENCODE_PIXELS = 512 * 512
"""Most pixels that ``encode`` looks at; a larger frame is reduced to means of blocks first."""


class Reconstructor:
    """Cubes from frames, with the files of one artifact folder. Use it in ``with`` or call ``close``.

    Any frame from 1×1 px up; memory grows with the width of a frame, not with its height (but for a cube that is
    returned whole). Threads may share it: windows of their frames take turns.
    """

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        backend: BackendName = "auto",
        precision: Precision | None = None,
        window: int = 512,
        threads: int | None = None,
        encode_pixels: int = ENCODE_PIXELS,
    ) -> Reconstructor:
        """Load a folder made by ``ccnet export``, with engines where ``ccnet build`` has put some.

        backend: what runs it, see ``backend.select``; one that was asked for is never replaced by another.
        precision: of decode, as ``encode`` is always FP32; None is the engine's own, and FP32 in ONNX Runtime.
        window: longest side, px, of what decode sees at a time; an engine's bounds go before it.
        threads: of ONNX Runtime on the CPU; None is one per core.
        encode_pixels: most pixels that ``encode`` looks at.

        CCNetError if the manifest, a file's SHA-256 or the manifest inside an ONNX does not fit, or for what was asked
        and is not there.
        """
        folder = Path(folder)
        manifest = Manifest.read(folder)
        check_tile(window, manifest.halo, manifest.size_multiple)
        with prefix_errors(folder):
            selection = select(manifest, backend, precision)
        with ExitStack() as stack:
            encoder, decoder = (
                stack.enter_context(open_backend(folder, manifest, selection, artifact, threads))
                for artifact in (selection.encode, selection.decode)
            )
            reconstructor = cls(manifest, selection, encoder, decoder, window, encode_pixels)
            stack.pop_all()
        return reconstructor

    def __init__(
        self,
        manifest: Manifest,
        selection: Selection,
        encoder: Backend,
        decoder: Backend,
        window: int = 512,
        encode_pixels: int = ENCODE_PIXELS,
    ) -> None:
        """From backends that are open, which it closes; ``open`` makes them from a folder."""
        if encode_pixels < 1:
            raise CCNetError(f"encode_pixels is {encode_pixels}, expected at least 1")
        self.manifest = manifest
        self.selection = selection
        self.encode_pixels = encode_pixels
        self._encoder, self._decoder = encoder, decoder
        self._encode_sides = SizeLimits.of(selection.encode, manifest.size_multiple)
        self._decode_sides = SizeLimits.of(selection.decode, manifest.size_multiple)
        self._asked = window
        self.window = min(max(window, self._decode_sides.least), self._decode_sides.most)
        check_tile(self.window, manifest.halo, manifest.size_multiple)
        self._lock = threading.Lock()
        self._closed = False

    def __call__(self, frame: Frame, context: Array | None = None, *, out: Array | None = None) -> Array:
        """The cube (31, H, W) of a frame, under the frame's own context or one given, such as an earlier frame's.

        frame: also DLPack or ``__cuda_array_interface__``, see ``interchange.as_frame``.
        out: float32 (31, H, W) to fill and return; with it nothing as large as a frame is allocated.

        CCNetError for a frame that is not RGB of a known dtype and range, and for a cube that is not finite.
        """
        frame = as_frame(frame)
        context = self._context(frame, context)
        cube = _target(out, (len(BANDS_NM), *frame.shape[:2]))
        self._fill(frame, context, (0, frame.shape[0]), cube)
        return cube

    def project(
        self, frame: Frame, projection: Projection, context: Array | None = None, *, out: Array | None = None
    ) -> Array:
        """Bands, ratios or a linear map (K, H, W) of the cube, made window by window: no cube is ever held.

        out: float32 (K, H, W) to fill and return.
        """
        frame = as_frame(frame)
        context = self._context(frame, context)
        out = _target(out, (len(projection.names), *frame.shape[:2]))
        for rows, columns, values in self._windows(frame, context, (0, frame.shape[0])):
            projection(values, out[:, rows, columns])
        return out

    def encode(self, frame: Frame) -> Array:
        """The frame's context (1, N), from the means of blocks as small as ``encode_pixels`` allows."""
        return self._context(as_frame(frame), None)

    def strips(self, frame: Frame, context: Array | None = None) -> Iterator[tuple[int, Array]]:
        """The cube from top to bottom as (top, strip (31, h, W)).

        All strips are views of one buffer: copy one to keep it beyond the next.
        """
        frame = as_frame(frame)
        return self._strips(frame, self._context(frame, context))

    def save(
        self, frame: Frame, path: str | Path, metadata: Mapping[str, str] | None = None, context: Array | None = None
    ) -> None:
        """Write the cube as .hdr, .mat or .npy, strip by strip: the file appears when it is whole, or not at all."""
        frame = as_frame(frame)
        self._check_frame(frame)
        height, width = frame.shape[:2]
        with open_cube(Path(path), height, width, metadata) as writer:
            for top, strip in self.strips(frame, context):
                writer.write(top, strip)

    def describe(self) -> dict[str, str]:
        """What runs and how, for tables."""
        limit = "" if self.window == self._asked else f" (by the engine or memory; {self._asked} px was asked for)"
        return {
            "backend": self._decoder.name,
            "graph": self.selection.decode.file,
            "precision": f"decode {self.selection.decode.precision}, encode {self.selection.encode.precision}",
            "window": f"{self.window} px{limit}",
            "halo": f"{self.manifest.halo} px",
            "context": f"whole frame, as block means of at most {self.encode_pixels / 1e6:.2g} Mpx",
        }

    def close(self) -> None:
        """Free the backends, after the window that another thread may be running; harmless when done twice."""
        with self._lock, ExitStack() as stack:
            self._closed = True
            stack.callback(self._encoder.close)
            stack.callback(self._decoder.close)

    def __enter__(self) -> Reconstructor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _context(self, frame: Frame, given: Array | None) -> Array:
        self._check_frame(frame)
        return self._checked(self._encode(frame) if given is None else given)

    def _encode(self, frame: Frame) -> Array:
        multiple, sides = self.manifest.size_multiple, self._encode_sides
        reduced = block_mean(frame, self._factor(*frame.shape[:2]))
        y, x = (Span(0, max(padded_size(size, multiple), sides.least), 0, size) for size in reduced.shape[:2])
        return self._run(
            self._encoder, {RGB: rgb_tensor(crop(reduced, y, x), self.manifest.input, frame.dtype)}, CONTEXT
        )

    def _strips(self, frame: Frame, context: Array) -> Iterator[tuple[int, Array]]:
        rows = [(y.first, y.last) for y in self._plan(frame.shape[0])]
        tallest = max(last - first for first, last in rows)
        buffer = np.empty((len(BANDS_NM), tallest, frame.shape[1]), np.float32)
        for first, last in rows:
            strip = buffer[:, : last - first]
            self._fill(frame, context, (first, last), strip)
            yield first, strip

    def _fill(self, frame: Frame, context: Array, rows: tuple[int, int], out: Array) -> None:
        """Fill ``out`` (31, last - first, W), the cube's rows from first to last."""
        for y, x, values in self._windows(frame, context, rows):
            out[:, y.start - rows[0] : y.stop - rows[0], x] = values

    def _windows(self, frame: Frame, context: Array, rows: tuple[int, int]) -> Iterator[tuple[slice, slice, Array]]:
        """Rows, columns and values (31, h, w) that cover ``rows``; some come again where memory was lacking."""
        first, last = rows
        while first < last:
            try:
                for y in self._plan(frame.shape[0]):
                    kept = slice(max(y.first, first), min(y.last, last))
                    if kept.start >= kept.stop:
                        continue
                    for x in self._plan(frame.shape[1]):
                        values = self._decode(frame, context, y, x)
                        yield kept, slice(x.first, x.last), values[:, kept.start - y.first : kept.stop - y.first]
                    first = kept.stop
            except OutOfMemoryError as error:
                self._shrink(error)

    def _decode(self, frame: Frame, context: Array, y: Span, x: Span) -> Array:
        """What a window keeps, (31, h, w)."""
        feeds = {RGB: rgb_tensor(crop(frame, y, x), self.manifest.input, frame.dtype), CONTEXT: context}
        cube = self._run(self._decoder, feeds, CUBE)
        expected = (1, len(BANDS_NM), y.stop - y.start, x.stop - x.start)
        if cube.shape != expected:
            raise CCNetError(f"{CUBE} is {cube.shape}, expected {expected}: export again")
        kept = cube[0, :, y.kept, x.kept]
        # A sum in float64 cannot overflow from finite values and needs no mask as large as the cube
        if not np.isfinite(kept.sum(dtype=np.float64)):
            raise CCNetError(f"the cube holds NaN or infinite values at rows {y.first} to {y.last}: {self._suspect()}")
        return kept

    def _shrink(self, error: OutOfMemoryError) -> None:
        """Go on with windows of half the side, and say so; the error where they are as small as can be."""
        multiple = self.manifest.size_multiple
        least = max(2 * self.manifest.halo + multiple, self._decode_sides.least)
        if self.window <= least:
            raise error
        self.window = max(padded_size(self.window // 2, multiple), least)
        _logger.warning("%s; from now on windows are %d px", error, self.window)

    def _suspect(self) -> str:
        fp16 = self.selection.decode.precision == "fp16"
        return "FP16 overflowed, use precision fp32" if fp16 else "the weights are broken, export others"

    def _run(self, backend: Backend, feeds: Mapping[str, npt.NDArray[Any]], output: str) -> Array:
        with self._lock:
            if self._closed:
                raise CCNetError("the reconstructor is closed: open the folder again")
            outputs = backend.run(feeds)
        if output not in outputs:
            raise CCNetError(f"outputs are {', '.join(outputs)}, expected {output}: export again")
        return outputs[output]

    def _plan(self, size: int) -> list[Span]:
        manifest = self.manifest
        return plan(size, self.window, manifest.halo, multiple=manifest.size_multiple, least=self._decode_sides.least)

    def _factor(self, height: int, width: int) -> int:
        """Smallest side of the blocks whose means ``encode`` takes."""
        factor = max(
            1, math.isqrt(height * width // self.encode_pixels), -(-max(height, width) // self._encode_sides.most)
        )
        while -(-height // factor) * -(-width // factor) > self.encode_pixels:
            factor += 1
        return factor

    def _check_frame(self, frame: Frame) -> None:
        allowed = ["uint8"] if self.manifest.input == "uint8" else list(FRAME_SCALE)
        if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape or frame.dtype.name not in allowed:
            raise CCNetError(
                f"frame is {frame.dtype} with shape {frame.shape}, expected (H, W, 3) in {', '.join(allowed)}"
            )
        if frame.dtype == np.float32 and not (frame.min() >= 0 and frame.max() <= 1):
            raise CCNetError(f"frame holds {frame.min():g} to {frame.max():g}, expected float32 in [0, 1]: scale it")

    def _checked(self, context: Array) -> Array:
        expected = (1, self.manifest.context_size)
        if context.shape != expected or context.dtype != np.float32:
            raise CCNetError(f"{CONTEXT} is {context.dtype} {context.shape}, expected float32 {expected}")
        if not np.isfinite(context).all():
            raise CCNetError(f"{CONTEXT} holds NaN or infinite values: the weights are broken, export others")
        return context


def _target(out: Array | None, shape: tuple[int, ...]) -> Array:
    if out is None:
        return np.empty(shape, np.float32)
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != np.float32 or not out.flags.writeable:
        kind = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise CCNetError(f"out is {kind}, expected a writeable float32 {shape}")
    return out
