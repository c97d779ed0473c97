"""``ccnet bundle``: graphs and golden outputs in a single file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ccnet.contract import ArtifactFolder, limit_cores
from ccnet.runtime.cli.options import (
    ARTIFACTS_FOLDER,
    ArtifactsArgument,
    InputSpaceOption,
    ThreadsOption,
    WeightsOption,
)

from .references import reference_frames

app = typer.Typer()


@app.command()
def bundle(
    folder: ArtifactsArgument = ARTIFACTS_FOLDER,
    frames: Annotated[
        list[Path] | None,
        typer.Option(
            "--frames", "-f", help="Frame, or folder of frames, whose centres become golden frames; may be repeated."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="File of the bundle.")] = Path("build/ccnet-bundle.zip"),
    weights: WeightsOption = None,
    side: Annotated[int, typer.Option(min=16, help="Longest side of a golden frame in px, a multiple of 16.")] = 256,
    input_space: InputSpaceOption = "srgb",
    threads: ThreadsOption = None,
) -> None:
    """Put graphs and golden outputs into one file, for 'make engine BUNDLE=…' on a device without torch.

    It holds the folder's ONNX graphs, its manifest with a SHA-256 of each file, and for each frame the outputs that
    PyTorch computes, so that the device can check its engines.
    """
    from rich.console import Console

    from ccnet.export.bundle import make_bundle
    from ccnet.runtime.io.frames import frame_paths

    limit_cores(threads)
    console = Console(stderr=True)
    opened, paths = ArtifactFolder.open(folder), frame_paths(frames or [])
    with console.status("golden outputs"):
        chosen = reference_frames(opened, paths, weights, input_space, side)
        bundled = make_bundle(opened, [frame.reference for frame in chosen], out)
    print(f"{out}: {len(bundled.artifacts)} files, {out.stat().st_size / 1e6:.1f} MB, {len(paths)} golden frames")
