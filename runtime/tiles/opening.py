"""Load the files of a selection, and choose the path that its frames take to their cubes."""

from __future__ import annotations

from contextlib import ExitStack

from ccnet.runtime.backends.loading import open_backend
from ccnet.runtime.backends.select import Selection
from ccnet.runtime.gpu.scratch import Scratch
from ccnet.runtime.tiles.resident.opening import open_resident

from .frame_path import FramePath
from .host_path import ENCODE_PIXELS, HostPath
from .memory import tile_rules
from .tiling import check_tile


def open_path(
    selection: Selection,
    *,
    tile: int | None = None,
    memory: int | None = None,
    threads: int | None = None,
    encode_pixels: int = ENCODE_PIXELS,
) -> FramePath:
    """Load the files that were selected.

    Args:
        selection: The backend and the files.
        tile: Side of all tiles, px. None: the planner chooses the sides.
        memory: Budget, bytes. None is the default.
        threads: CPU threads of ONNX Runtime; None is one per core.
        encode_pixels: Maximum of pixels that ``encode`` reads.

    Returns:
        The path, which the caller must close.
    """
    manifest = selection.folder.manifest
    if tile is not None:
        check_tile(tile, manifest.halo, manifest.size_multiple)
    rules = tile_rules(selection, tile, memory)
    if selection.runs_engines and (resident := open_resident(selection, rules, encode_pixels=encode_pixels)):
        return resident
    scratch = Scratch()  # shared: HostPath runs one graph at a time
    with ExitStack() as stack:
        encoder, decoder, *full = (
            stack.enter_context(open_backend(selection, artifact, threads, scratch))
            for artifact in (selection.encode, selection.decode, selection.full)
            if artifact
        )
        path = HostPath(selection, encoder, decoder, *full, tile=tile, memory=memory, encode_pixels=encode_pixels)
        stack.pop_all()
    return path
