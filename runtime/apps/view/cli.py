"""``ccnet view``: cubes and frames on a local page."""

from __future__ import annotations

import sys
import webbrowser
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from ccnet.runtime.cli.options import (
    ARTIFACTS_FOLDER,
    ArtifactsOption,
    BackendOption,
    InputSpaceOption,
    MemoryOption,
    ThreadsOption,
    to_bytes,
)

app = typer.Typer()

DEFAULT_PORT = 8031


@app.command()
def view(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="CUBE|FRAME",
            help="Cubes (.hdr, .mat, .npy, .tif, .nc, a .zarr folder) or frames, which are reconstructed first; with"
            " several, the first is compared with the others.",
        ),
    ],
    frame: Annotated[
        Path | None,
        typer.Option(help="Frame that the first cube was reconstructed from, for its picture and its residual."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0: any that is free.")] = DEFAULT_PORT,
    host: Annotated[
        str, typer.Option(help="Address to bind; any but this machine's own loopback asks for a token.")
    ] = "127.0.0.1",
    browser: Annotated[
        bool | None, typer.Option("--browser/--no-browser", help="Open the page; if not given, from a terminal only.")
    ] = None,
    artifacts: ArtifactsOption = ARTIFACTS_FOLDER,
    backend: BackendOption = "auto",
    memory: MemoryOption = None,
    threads: ThreadsOption = None,
    input_space: InputSpaceOption = "srgb",
) -> None:
    """Show cubes on a local page: in colour, by band, as spectra and ratios, and side by side.

    The page reads only what it shows, so that cubes may be larger than the memory. Press Ctrl-C to stop.
    """
    from ccnet.runtime.probe import open_probed

    from .opening import MOST_CUBES, Opener
    from .scene import Scene
    from .server import ViewServer

    opener = Opener(
        lambda: open_probed(
            artifacts, input_space=input_space, backend=backend, memory=to_bytes(memory), threads=threads
        ),
        artifacts,
        input_space,
        _report_progress,
    )
    with closing(opener):
        cubes = []
        for index, path in enumerate(paths):
            cubes += opener.open(path, frame if index == 0 else None)
        if len(cubes) > MOST_CUBES:
            print(f"{len(cubes)} cubes, the first {MOST_CUBES} are shown")
        with ViewServer(Scene(cubes[:MOST_CUBES]), port, host) as server:
            print(f"{server.url}  (Ctrl-C stops it)", flush=True)
            if sys.stdout.isatty() if browser is None else browser:
                webbrowser.open(server.url)
            server.run()


def _report_progress(name: str, done: int, rows: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{name}: {done / rows:4.0%}", end="\n" if done == rows else "", file=sys.stderr, flush=True)
