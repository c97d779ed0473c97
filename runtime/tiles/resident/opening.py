"""Open the engines of a selection as a path that keeps frames on the GPU."""

from __future__ import annotations

import logging
from contextlib import ExitStack

from ccnet.contract import CUBE_SUM, Artifact, prefix_errors
from ccnet.runtime.backends.select import Selection
from ccnet.runtime.backends.trt_engine import Engine
from ccnet.runtime.gpu.cuda import Device
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
        engines = {"decode": decode}
        for artifact in filter(None, (selection.encode, selection.full)):
            engines[artifact.kind] = _open(selection, artifact, device)
            stack.callback(engines[artifact.kind].close)
        chosen = filter(None, (selection.encode, selection.decode, selection.full))
        caches = {artifact.kind: selection.kernel_cache(artifact) for artifact in chosen}
        pipeline = Pipeline(engines, selection.folder.manifest, caches)
        stack.callback(pipeline.close)
        path = ResidentPath(selection, pipeline, rules, encode_pixels=encode_pixels)
        stack.pop_all()
    return path


def _open(selection: Selection, artifact: Artifact, device: Device) -> Engine:
    data = selection.folder.read(artifact)
    with prefix_errors(selection.folder.path / artifact.file):
        return selection.open_engine(artifact, data, device)
