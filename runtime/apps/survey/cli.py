"""``ccnet survey``: an archive of frames to cubes, bands, indices or maps."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccnet.contract import CCNetError
from ccnet.runtime.cli.options import (
    ARTIFACTS_FOLDER,
    ArtifactsOption,
    BackendOption,
    DeviceOption,
    InputSpaceOption,
    MemoryOption,
    PrecisionOption,
    ThreadsOption,
    to_bytes,
)
from ccnet.runtime.io.cubes import CubeFormat

if TYPE_CHECKING:
    from ccnet.runtime.tiles.projection import Projection

    from .manifest import Row
    from .survey import Counts

app = typer.Typer()

_LISTED = 20  # lines of failed frames; the manifest has all


@app.command()
def survey(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Folder, pattern, list (.csv, .parquet with a column path), or address such as s3://…",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results and of manifest.parquet.")],
    artifacts: ArtifactsOption = ARTIFACTS_FOLDER,
    bands: Annotated[
        list[int] | None,
        typer.Option("--band", help="Write this band, nm, instead of the cube; repeat it for several."),
    ] = None,
    indices: Annotated[
        list[str] | None, typer.Option("--index", help="Write (A - B) / (A + B) of bands in nm: NAME=A,B; repeat it.")
    ] = None,
    matrix: Annotated[
        Path | None, typer.Option("--matrix", help="Write a linear map, such as a classifier's: .npy (K, 31).")
    ] = None,
    format: Annotated[
        CubeFormat | None,
        typer.Option(
            "--format",
            help="File format; if not given, hdr for cubes and npy for bands, indices and maps, which can be hdr and"
            " tif too.",
        ),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", help="Address of a Dask scheduler, tcp://HOST:8786; else this process.")
    ] = None,
    input_space: InputSpaceOption = "srgb",
    backend: BackendOption = "auto",
    precision: PrecisionOption = None,
    memory: MemoryOption = None,
    device: DeviceOption = 0,
    threads: ThreadsOption = None,
) -> None:
    """Reconstruct an archive of frames, on this machine or on a Dask cluster.

    Results appear when they are whole, and a second run makes only those that are missing. manifest.parquet has a row
    for each frame; frames that fail are listed at the end, and make the exit code 1.
    """
    from .cluster import Cluster
    from .sources import find_frames
    from .survey import run_here, run_survey
    from .worker import Engine, Task

    projection, wanted = _projection(bands or [], indices or [], matrix)
    if format is None:
        format = "hdr" if projection is None else "npy"
    elif projection is not None and format not in ("hdr", "npy", "tif"):
        raise CCNetError(f"--format {format} is for cubes, expected hdr, npy or tif for --band, --index and --matrix")
    engine = Engine(
        artifacts=str(artifacts.absolute()),
        input_space=input_space,
        backend=backend,
        precision=precision,
        memory=to_bytes(memory),
        threads=threads,
        device=device,
    )
    task = Task(engine=engine, out=str(out.absolute()), projection=projection, format=format)
    frames = find_frames(sources)
    runner = Cluster(scheduler) if scheduler else run_here
    if isinstance(runner, Cluster):
        print(f"{scheduler}: dashboard {runner.dashboard}", file=sys.stderr)
    progress = _Progress()
    wanted = wanted if wanted and format == "npy" else f"{wanted or 'cubes'}, {format}"
    counts, failed = run_survey(task, frames, wanted=wanted, runner=runner, report=progress)
    progress.end()
    for row in failed[:_LISTED]:
        print(f"failed: {row.frame}: {row.reason}", file=sys.stderr)
    if len(failed) > _LISTED:
        print(f"… and {len(failed) - _LISTED} more, with their reasons in the manifest", file=sys.stderr)
    print(f"{out}: {counts.total} frames: {counts.done} done, {counts.kept} there already, {counts.failed} failed")
    if failed:
        raise typer.Exit(1)


def _projection(bands: list[int], indices: list[str], matrix: Path | None) -> tuple[Projection | None, str]:
    """Return the projection that the options ask for, and its words for the manifest; None and "" for cubes."""
    from ccnet.contract import sha256
    from ccnet.runtime.io.formats.npy import map_npy
    from ccnet.runtime.tiles.projection import Projection

    if bool(bands) + bool(indices) + (matrix is not None) > 1:
        raise CCNetError("more than one of --band, --index and --matrix is there, expected at most one of them")
    if bands:
        return Projection.bands(*bands), f"bands {' '.join(map(str, bands))} nm"
    if indices:
        return Projection.differences(dict(map(_index, indices))), f"indices {' '.join(indices)}"
    if matrix is not None:
        return Projection.linear(map_npy(matrix)), f"matrix {sha256(matrix)[:16]}"
    return None, ""


def _index(text: str) -> tuple[str, tuple[int, int]]:
    name, equals, pair = text.partition("=")
    first, comma, second = pair.partition(",")
    if not (name and equals and comma and first.strip().isdigit() and second.strip().isdigit()):
        raise CCNetError(f"--index is {text!r}, expected NAME=A,B with two bands in nm, such as edge=700,670")
    return name, (int(first), int(second))


class _Progress:
    """A line on stderr with the numbers of frames and the time that is left: in place on a terminal, else at times."""

    def __init__(self) -> None:
        self._started = self._shown = time.monotonic()
        self._in_place = sys.stderr.isatty()

    def __call__(self, counts: Counts, row: Row | None) -> None:
        now = time.monotonic()
        if row is not None and now - self._shown < (0.5 if self._in_place else 30):
            return
        self._shown = now
        finished = counts.done + counts.failed
        text = f"{counts.total - counts.left} of {counts.total} frames, {counts.failed} failed"
        if finished:
            seconds = (now - self._started) * counts.left / finished
            text += f", {finished / (now - self._started):.3g} frames/s, {_duration(seconds)} left"
        print(text, file=sys.stderr, end="\x1b[K\r" if self._in_place else "\n", flush=True)

    def end(self) -> None:
        """Begin a new line."""
        if self._in_place:
            print(file=sys.stderr)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes // 60} h {minutes % 60:02} min"
