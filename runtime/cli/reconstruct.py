"""``ccnet reconstruct``: hyperspectral cubes from RGB frames on disk."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

import typer

from ccnet.contract import CCNetError
from ccnet.metrics.predicted_error import ErrorModel
from ccnet.runtime.io.cameras.adjustment import Adjustment
from ccnet.runtime.io.cameras.preparation import FramePreparation, prepared_space
from ccnet.runtime.io.cameras.raw_file import RAW_SUFFIXES, is_raw, read_raw
from ccnet.runtime.io.cubes import CubeFormat, open_cube
from ccnet.runtime.io.formats.georeference import read_georeference
from ccnet.runtime.io.frames import FRAME_SUFFIXES, Frame, describe_colour, read_frame, result_names
from ccnet.runtime.io.sensor import Radiometry
from ccnet.runtime.probe import open_probed
from ccnet.runtime.quality.correction import CORRECTED, correct_by
from ccnet.runtime.quality.predicted_error import error_target, open_error_cube, read_error_model
from ccnet.runtime.quality.reprojection import ReprojectionCheck
from ccnet.runtime.reconstructor import Reconstructor
from ccnet.runtime.viz.plots import heat_map
from ccnet.runtime.viz.plots import picture as draw_picture
from ccnet.runtime.viz.render import Thumbnail
from ccnet.runtime.viz.style import check_picture

from .options import (
    ARTIFACTS_FOLDER,
    ArtifactsOption,
    BackendOption,
    CorrectOption,
    CubeFormatOption,
    DeviceOption,
    ExposureOption,
    MemoryOption,
    OptionalInputSpaceOption,
    PrecisionOption,
    RadiometryOption,
    ThreadsOption,
    TileOption,
    WhiteOption,
    to_bytes,
)

app = typer.Typer()

_FILE_SUFFIXES = {
    *(f".{format}" for format in get_args(CubeFormat)),
    *FRAME_SUFFIXES,
    *RAW_SUFFIXES,
    ".img",
    ".h5",
    ".zarr",
}
"""Suffixes of --out that name one file, of a cube or by mistake; any other name is that of a folder."""

_PHOTOGRAPHS = (".jpg", ".jpeg", ".webp", ".avif", ".heic", ".heif")
"""Suffixes of pictures that cameras write after a tone curve."""

_TONE_CURVE = (
    "--radiometry takes the values of this photograph for linear light, and cameras write such files with a tone curve:"
    " give the raw file, or leave --radiometry out"
)


@app.command()
def reconstruct(
    frames: Annotated[
        list[Path],
        typer.Argument(metavar="FRAME", help="PNG, JPEG, TIFF, BMP, DNG and other raw files, .npy; 16 px to 128 Mpx."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Cube: ENVI .hdr, MATLAB/NTIRE .mat, .npy, GeoTIFF .tif or NetCDF .nc; any other name is a folder's.",
        ),
    ],
    artifacts: ArtifactsOption = ARTIFACTS_FOLDER,
    backend: BackendOption = "auto",
    precision: PrecisionOption = None,
    tile: TileOption = None,
    memory: MemoryOption = None,
    device: DeviceOption = 0,
    threads: ThreadsOption = None,
    format: CubeFormatOption = "hdr",
    input_space: OptionalInputSpaceOption = None,
    radiometry: RadiometryOption = None,
    exposure: ExposureOption = None,
    white: WhiteOption = None,
    picture: Annotated[
        Path | None, typer.Option(help="PNG to draw of a single frame: its cube, bands and spectra.")
    ] = None,
    reprojection: Annotated[
        Path | None,
        typer.Option(
            "--reprojection", "--consistency", help="PNG to draw of a single frame: its reprojection residual."
        ),
    ] = None,
    correct: CorrectOption = False,
    error: Annotated[
        bool,
        typer.Option("--error", help="Write the predicted error beside each cube: NAME.error, ± reflectance for 90 %."),
    ] = False,
) -> None:
    """Reconstruct hyperspectral cubes from RGB frames.

    A cube has 31 bands, 400 to 700 nm, and the height and width of its frame. It is written part by part and appears
    under its name when it is complete. Where the artifacts name the camera of their weights, a line says how well the
    cube explains the frame.
    """
    raw, adjustment = Radiometry.find(radiometry) if radiometry else None, Adjustment.parse(exposure, white)
    space = prepared_space(raw, input_space)
    targets = _targets(frames, out, format, error)
    drawings = _Drawings(picture, reprojection)
    drawings.check(frames)
    with open_probed(
        artifacts,
        input_space=space,
        backend=backend,
        precision=precision,
        tile=tile,
        memory=to_bytes(memory),
        device=device,
        threads=threads,
    ) as reconstructor:
        prepare = FramePreparation(reconstructor.manifest, space, raw, adjustment)
        model = read_error_model(reconstructor.selection.folder) if error else None
        for source, target in zip(frames, targets, strict=True):
            _reconstruct(reconstructor, prepare, source, target, drawings, model, correct)


@dataclass(frozen=True)
class _Drawings:
    """The PNG files to draw of a single frame."""

    picture: Path | None
    reprojection: Path | None

    def check(self, frames: list[Path]) -> None:
        """Raise CCNetError if a file cannot be drawn, before any work is done."""
        for option, path in (("--picture", self.picture), ("--reprojection", self.reprojection)):
            if path is None:
                continue
            if len(frames) > 1:
                raise CCNetError(f"{option} draws one frame, but there are {len(frames)}: leave it out")
            if path.resolve() == frames[0].resolve():
                raise CCNetError(f"{path}: is the frame, the picture would replace it; choose another {option}")
            check_picture(path)
        if self.picture and self.reprojection and self.picture.resolve() == self.reprojection.resolve():
            raise CCNetError(f"{self.picture}: is named by both --picture and --reprojection; choose two names")

    def draw(self, frame: Frame, thumbnail: Thumbnail | None, check: ReprojectionCheck | None) -> None:
        """Draw the files that are wanted, and print their names."""
        if thumbnail and self.picture:
            draw_picture(thumbnail.thin(frame), thumbnail.cube, self.picture)
            print(self.picture)
        if check and self.reprojection:
            residuals = check.residuals
            title = f"Residual, mean {check.score:.1%}"
            heat_map(residuals.thin(frame), residuals.cube[0], title, self.reprojection)
            print(self.reprojection)


def _targets(frames: list[Path], out: Path, format: CubeFormat, error: bool) -> list[Path]:
    """Return the path of each frame's cube; CCNetError if it is a frame itself or occurs twice."""
    is_file = out.suffix.lower() in _FILE_SUFFIXES and not out.is_dir()
    if is_file and len(frames) > 1:
        raise CCNetError(f"{out}: is the name of one file, but there are {len(frames)} frames; expected a folder")
    into_folder = not is_file
    targets = [out / f"{name}.{format}" for name in result_names(frames)] if into_folder else [out]
    sources = {frame.resolve() for frame in frames}
    written = [*targets, *map(error_target, targets)] if error else targets
    for index, target in enumerate(written):
        if {target.resolve(), target.with_suffix(".img").resolve()} & sources:
            raise CCNetError(f"{target}: is a frame, the cube would replace it; choose another --out")
        if target in written[:index]:
            raise CCNetError(f"{target}: two frames have this name; reconstruct them one at a time")
    return targets


def _reconstruct(
    reconstructor: Reconstructor,
    prepare: FramePreparation,
    source: Path,
    target: Path,
    drawings: _Drawings,
    model: ErrorModel | None,
    correct: bool,
) -> None:
    """Write the cube of one frame, its predicted error and its drawings, and print a line on each."""
    frame, prepare = _read(source, prepare)
    pixels = prepare(frame)
    correction = correct_by(pixels, prepare) if correct else None
    height, width = frame.shape[:2]
    # The whole cube may be larger than memory, and a picture needs few of its pixels
    thumbnail = Thumbnail(height, width) if drawings.picture else None
    has_camera = reconstructor.manifest.camera is not None
    check = ReprojectionCheck(pixels, reconstructor.manifest) if drawings.reprojection or has_camera else None
    description = reconstructor.describe()
    metadata = _metadata(source, prepare) | reconstructor.provenance() | (CORRECTED if correct else {})
    georeference = read_georeference(source, height, width)
    started = time.perf_counter()
    with ExitStack() as stack:
        error = None
        if model:  # opened first, so that it is closed last: 'ccnet view' ignores one that is older than its cube
            beside = error_target(target)
            error = stack.enter_context(open_error_cube(beside, pixels, model, metadata, georeference))
        writer = stack.enter_context(open_cube(target, height, width, metadata, georeference))
        advance = stack.enter_context(_progress(source.name, height * width))
        for top, left, part in reconstructor.parts(pixels):
            # The check before the correction, after which every cube explains its frame
            for receiver in (check, correction, writer, error, thumbnail):
                if receiver:
                    receiver.write(top, part, left)
            advance(part[0].size)
            del part  # frees its memory for the next tile
    ms = 1e3 * (time.perf_counter() - started)
    print(
        f"{target}: {width}×{height} px, {height * width / 1e6:.3g} Mpx in {ms:.0f} ms; {description['backend']},"
        f" {description['precision']}, {prepare.describe()}{', corrected by its frame' if correction else ''}"
    )
    if check:
        print(f"{target}: {check.verdict()}")
    if error:
        print(f"{error_target(target)}: {error.describe()}")
    drawings.draw(frame, thumbnail, check)


def _metadata(source: Path, prepare: FramePreparation) -> dict[str, str]:
    """Return what the metadata of a cube say of its frame."""
    colour = {"colour": describe_colour(source)} if prepare.input_space == "srgb" else {}
    return {"source": source.name, "space": prepare.input_space} | colour | prepare.metadata()


def _read(source: Path, prepare: FramePreparation) -> tuple[Frame, FramePreparation]:
    """Return a frame and its preparation, with a warning of values that are probably not what the radiometry expects.

    A raw file brings its camera's matrix.
    """
    frame: Frame = read_raw(source) if is_raw(source) else read_frame(source, as_stored=prepare.input_space == "camera")
    prepare = prepare.for_frame(frame)
    if warning := prepare.missing_matrix():
        print(f"ccnet: {source}: {warning}", file=sys.stderr)
    if source.suffix.lower() in _PHOTOGRAPHS and prepare.radiometry and prepare.radiometry.transfer == "linear":
        print(f"ccnet: {source}: {_TONE_CURVE}", file=sys.stderr)
    return frame, prepare


@contextmanager
def _progress(name: str, pixels: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal's stderr.

    Args:
        name: Text beside the bar.
        pixels: Number of pixels that make it full.

    Yields:
        A function that advances the bar by a number of pixels.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(escape(name), total=pixels)
        yield lambda count: bar.advance(task, count)
