"""``ccnet plan``: the tiles that a frame would be decoded in, and what they cost, without decoding it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ccnet.contract import ArtifactFolder, CCNetError
from ccnet.runtime.backends.select import select
from ccnet.runtime.io.frames import Frame, read_frame
from ccnet.runtime.tiles.host_path import ENCODE_PIXELS
from ccnet.runtime.tiles.memory import frame_memory, tile_rules
from ccnet.runtime.tiles.planner import FramePlan, TileRules, plan_frame
from ccnet.runtime.tiles.resident.budget import GpuMemory
from ccnet.runtime.tiles.tiling import check_tile
from ccnet.runtime.viz.style import check_picture
from ccnet.runtime.viz.tile_plan import draw_plan

from .options import (
    ARTIFACTS_FOLDER,
    ArtifactsOption,
    BackendOption,
    DeviceOption,
    InputSpaceOption,
    MemoryOption,
    PrecisionOption,
    TileOption,
    to_bytes,
)

app = typer.Typer()

_SIZE = re.compile(r"(\d{1,6})x(\d{1,6})", re.ASCII)


@app.command()
def plan(
    frame: Annotated[str, typer.Argument(metavar="FRAME", help="Frame's file, or its size: WxH in px.")],
    artifacts: ArtifactsOption = ARTIFACTS_FOLDER,
    backend: BackendOption = "auto",
    precision: PrecisionOption = None,
    tile: TileOption = None,
    memory: MemoryOption = None,
    device: DeviceOption = 0,
    input_space: InputSpaceOption = "srgb",
    picture: Annotated[Path | None, typer.Option(help="PNG to draw of the frame and its tiles.")] = None,
) -> None:
    """Show the tiles that a frame would be decoded in, their cost and their memory, without decoding it."""
    if picture is not None:
        check_picture(picture)
    selection = select(ArtifactFolder.open(artifacts), backend, precision, device)
    manifest = selection.folder.manifest
    if tile is not None:
        check_tile(tile, manifest.halo, manifest.size_multiple)
    rules = replace(tile_rules(selection, tile, to_bytes(memory)), strip_bytes=0)
    pixels = _pixels(frame)
    height, width = pixels.shape[:2]
    if selection.runs_engines:
        found = GpuMemory.of(selection).plan(height, width, rules, ENCODE_PIXELS).tiles
    else:
        # A photograph is converted to float32
        converted = np.broadcast_to(np.float32(0), pixels.shape) if input_space == "srgb" else pixels
        found = plan_frame(height, width, frame_memory(converted), rules)
    _print(found, rules, height, width, selection.decode.file)
    if picture is not None:
        draw_plan(found, pixels, picture)
        print(picture)


def _pixels(frame: str) -> Frame:
    """Return the frame of a file; for a size, a grey frame that takes no memory."""
    size = _SIZE.fullmatch(frame)
    if size is None or Path(frame).exists():
        return read_frame(frame)
    width, height = map(int, size.groups())
    if not width * height:
        raise CCNetError(f"size is {frame}, expected WxH in px, such as 1920x1080")
    return np.broadcast_to(np.uint8(200), (height, width, 3))


def _print(found: FramePlan, rules: TileRules, height: int, width: int, file: str) -> None:
    """Print a plan as a table."""
    tile_height, tile_width = found.tile
    budget = "no limit" if rules.memory is None else f"{rules.memory / 1e6:.0f} MB"
    rows = {
        "frame": f"{width}×{height} px, {height * width / 1e6:.3g} Mpx",
        "graph": f"{file}, {rules.tile_bytes} bytes a pixel of a tile",
        "tiles": f"{len(found.columns)}×{len(found.rows)} of {tile_width}×{tile_height} px, halo {rules.halo} px",
        "computed": f"{found.pixels_per_kept:.3f} pixels per pixel kept",
        "memory": f"about {found.memory / 1e6:.0f} MB, budget {budget}",
    }
    for name, words in rows.items():
        print(f"{name:8}  {words}")
