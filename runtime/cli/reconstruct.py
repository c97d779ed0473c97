"""``ccnet reconstruct`` and ``ccnet inspect``; the other packages' commands join them in ``cli``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, get_args

import typer

from ccnet import __version__
from ccnet.contract import CCNetError
from ccnet.runtime.cli.options import (
    ARTIFACTS_FOLDER,
    ArtifactsOption,
    BackendOption,
    CubeFormat,
    CubeFormatOption,
    InputSpaceOption,
    PrecisionOption,
    TileOption,
)
from ccnet.runtime.io.cubes import open_cube
from ccnet.runtime.io.frames import read_frame
from ccnet.runtime.io.srgb import InputSpace
from ccnet.runtime.probe import open_probed
from ccnet.runtime.quality.reprojection import ReprojectionCheck
from ccnet.runtime.reconstructor import Reconstructor
from ccnet.runtime.viz.plots import heat_map
from ccnet.runtime.viz.plots import picture as draw
from ccnet.runtime.viz.render import Thumbnail
from ccnet.runtime.viz.style import check_picture

app = typer.Typer()


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ccnet {__version__}")
        raise typer.Exit


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What stands before a command."""


@app.command()
def reconstruct(
    frames: Annotated[
        list[Path], typer.Argument(metavar="FRAME", help="PNG, JPEG, TIFF, BMP or .npy (H, W, 3), 16 px to 128 Mpx.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Cube: ENVI .hdr, MATLAB/NTIRE .mat or .npy; for several frames the cubes' folder."
        ),
    ],
    artifacts: ArtifactsOption = ARTIFACTS_FOLDER,
    backend: BackendOption = "auto",
    precision: PrecisionOption = None,
    window: TileOption = 512,
    format: CubeFormatOption = "hdr",
    space: InputSpaceOption = "srgb",
    picture: Annotated[
        Path | None, typer.Option(help="PNG to draw of a single frame: its cube, bands and spectra.")
    ] = None,
    consistency: Annotated[
        Path | None,
        typer.Option(
            "--reprojection",
            "--consistency",
            help="PNG to draw of a single frame: its reprojection residual.",
        ),
    ] = None,
) -> None:
    """RGB frames → hyperspectral cubes.

    A cube has 31 bands, 400 to 700 nm, and its frame's height and width. It goes to the disk while it is made, and
    appears under its name when it is whole. Where the artifacts know their weights' camera, a line says how well the
    cube explains the frame.
    """
    targets = _targets(frames, out, format)
    drawings = {"--picture": picture, "--reprojection": consistency}
    for option, drawing in drawings.items():
        if drawing is not None:
            _check_drawing(option, drawing, frames)
    if picture is not None and consistency is not None and picture.resolve() == consistency.resolve():
        raise CCNetError(f"{picture}: is named by both --picture and --reprojection; give two names")
    with open_probed(artifacts, input_space=space, backend=backend, precision=precision, tile=window) as reconstructor:
        if targets != [out]:
            out.mkdir(exist_ok=True)
        for source, target in zip(frames, targets, strict=True):
            _reconstruct(reconstructor, source, target, space, picture, consistency)


@app.command()
def inspect(
    path: Annotated[
        Path, typer.Argument(help="Artifact folder, .onnx, weights (.safetensors), cube (.hdr, .mat, .npy) or frame.")
    ],
) -> None:
    """What a file or folder holds.

    Sizes, precision, configuration, ranges of values, and whether an artifact folder's files are intact.
    """
    from .contents import contents

    print("\n\n".join(_columns(table) for table in contents(path)))


def _targets(frames: list[Path], out: Path, format: CubeFormat) -> list[Path]:
    """One cube's path for each frame; none is a frame itself, none comes twice."""
    many = len(frames) > 1 or out.is_dir()
    if many and not out.is_dir() and out.suffix[1:].lower() in get_args(CubeFormat):
        raise CCNetError(f"{out}: a cube's name for {len(frames)} frames, expected the folder of their cubes")
    targets = [out / f"{frame.stem}.{format}" for frame in frames] if many else [out]
    sources = {frame.resolve() for frame in frames}
    for index, target in enumerate(targets):
        if {target.resolve(), target.with_suffix(".img").resolve()} & sources:
            raise CCNetError(f"{target}: is a frame, the cube would replace it; give another --out")
        if target in targets[:index]:
            raise CCNetError(f"{target}: two frames have this name; reconstruct them one at a time")
    return targets


def _check_drawing(option: str, path: Path, frames: list[Path]) -> None:
    if len(frames) > 1:
        raise CCNetError(f"{option} is of one frame, but {len(frames)} were given: leave it out")
    if path.resolve() == frames[0].resolve():
        raise CCNetError(f"{path}: is the frame, the picture would replace it; give another {option}")
    check_picture(path)


def _reconstruct(
    reconstructor: Reconstructor,
    source: Path,
    target: Path,
    space: InputSpace,
    picture: Path | None,
    consistency: Path | None,
) -> None:
    frame = read_frame(source)
    pixels = reconstructor.camera_frame(frame)
    height, width = frame.shape[:2]
    # A picture needs few of the cube's pixels, and the whole cube may be larger than the memory
    thumbnail = Thumbnail(height, width) if picture else None
    check = ReprojectionCheck(pixels, reconstructor.manifest) if consistency or reconstructor.manifest.camera else None
    about = reconstructor.describe()
    metadata = {"source": source.name, "space": space, **reconstructor.provenance()}
    started = time.perf_counter()
    with open_cube(target, height, width, metadata) as writer, _progress(source.name, height) as advance:
        for top, strip in reconstructor.strips(pixels):
            for taker in (writer, thumbnail, check):
                if taker:
                    taker.write(top, strip)
            advance(strip.shape[1])
    ms = 1e3 * (time.perf_counter() - started)
    print(
        f"{target}: {width}×{height} px, {height * width / 1e6:.3g} Mpx in {ms:.0f} ms; {about['backend']},"
        f" {about['precision']}, {space} frame"
    )
    if check:
        print(f"{target}: {check.verdict()}")
    if thumbnail and picture:
        draw(thumbnail.thin(frame), thumbnail.cube, picture)
        print(picture)
    if check and consistency:
        residuals = check.residuals
        heat_map(residuals.thin(frame), residuals.cube[0], f"Residual, mean {check.score:.1%}", consistency)
        print(consistency)


@contextmanager
def _progress(what: str, rows: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal's stderr while ``rows`` come."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(escape(what), total=rows)
        yield lambda count: bar.advance(task, count)


def _columns(table: list[tuple[str, ...]]) -> str:
    # A file may come from anywhere, and its strings may hold what a terminal obeys
    rows = [["".join(c if c.isprintable() else "?" for c in cell) for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
