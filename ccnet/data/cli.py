"""``ccnet simulate``: RGB frames of hyperspectral cubes; and ``ccnet camera``, see ``colour.cli``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .colour.cli import camera_app
from .options import CAMERA_HELP, SOURCE_FORMAT, ExposureOption, FrameOptions, IlluminantOption, TrackOption

app = typer.Typer()
app.add_typer(camera_app, name="camera")


@app.command()
def simulate(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=f"Cubes to make frames of: {SOURCE_FORMAT}.")],
    camera: Annotated[list[Path], typer.Option(help=f"{CAMERA_HELP}.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the frames; several cameras get a subfolder each.")
    ],
    illuminant: IlluminantOption = None,
    track: TrackOption = "clean",
    exposure: ExposureOption = (1.0, 1.0),
    split: Annotated[
        Literal["train", "val"], typer.Option(help="Split of a data set that publishes splits.")
    ] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
) -> None:
    """Simulate the RGB frames that cameras would take of hyperspectral cubes.

    Frames are PNGs of linear light, white-balanced; 'ccnet reconstruct --input-space camera' reads them.
    """
    from rich.console import Console
    from rich.progress import track as progress_bar

    from .datasets import open_source
    from .simulate import frame_folders
    from .simulate import simulate as simulate_frames

    options = FrameOptions(camera=camera, illuminant=illuminant, track=track, exposure=exposure)
    cameras, scenes = options.read_cameras(camera), open_source(source, split)
    frames = simulate_frames(scenes, cameras, options.imaging, out, seed)
    console = Console(stderr=True)
    for _ in progress_bar(frames, "frames", len(scenes) * len(cameras), console=console, transient=True):
        pass
    for each, folder in zip(cameras, frame_folders(cameras, out), strict=True):
        typer.echo(f"{folder}: {len(scenes)} frames of {each.name}, {track} track")
