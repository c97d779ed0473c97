"""Open the engines of a selection as a path that keeps frames on the GPU."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace

from ccnet.contract import CUBE_SUM, Artifact, CCNetError, prefix_errors
from ccnet.runtime.backends.select import Selection
from ccnet.runtime.backends.trt_engine import Engine
from ccnet.runtime.gpu.cuda import Device
from ccnet.runtime.gpu.out_of_memory import OutOfMemoryError
from ccnet.runtime.tiles.planner import TileRules

from .path import ResidentPath
from .pipeline import Pipeline

_logger = logging.getLogger(__name__)


def open_resident(selection: Selection, rules: TileRules, *, encode_pixels: int) -> ResidentPath | None:
    """Load the engines that were selected.

    Args:
        selection: The engines.
        rules: The sizes that tiles may have.
        encode_pixels: Maximum of pixels that ``encode`` reads.

    Returns:
        The path, which the caller must close; None for engines of version 0.1.0, whose cubes the host must check.
    """
    with Device(selection.device) as device, ExitStack() as stack:
        decode = _open(selection, selection.decode, device)
        stack.callback(decode.close)
        if CUBE_SUM not in decode.tensors:
            _logger.warning(
                "frames pass through the host, for engines of an older ccnet: ccnet build builds faster ones"
            )
            return None
        artifacts = {"encode": selection.encode, "decode": selection.decode}
        engines = {"encode": _open(selection, selection.encode, device), "decode": decode}
        stack.callback(engines["encode"].close)
        if selection.full is not None and (full := _open_full(selection, selection.full, device)):
            artifacts["full"], engines["full"] = selection.full, full
            stack.callback(full.close)
        else:
            selection = replace(selection, full=None)
        caches = {kind: selection.kernel_cache(artifact) for kind, artifact in artifacts.items()}
        pipeline = Pipeline(engines, selection.folder.manifest, caches)
        stack.callback(pipeline.close)
        path = ResidentPath(selection, pipeline, rules, encode_pixels=encode_pixels)
        stack.pop_all()
    return path


def _open_full(selection: Selection, artifact: Artifact, device: Device) -> Engine | None:
    """Return the engine of ``full``; None, with a warning, where the GPU has too little memory for it."""
    try:
        return _open(selection, artifact, device)
    except CCNetError as error:
        if not isinstance(error.__cause__, OutOfMemoryError):
            raise
        _logger.warning("%s; all frames take two passes", error)
        return None


def _open(selection: Selection, artifact: Artifact, device: Device) -> Engine:
    data = selection.folder.read(artifact)
    with prefix_errors(selection.folder.path / artifact.file):
        return selection.open_engine(artifact, data, device)
