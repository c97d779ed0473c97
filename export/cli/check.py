"""``ccnet check``: compare what the artifacts compute with what PyTorch computes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccnet.contract import SHIPPED_WEIGHTS, ArtifactFolder, limit_cores, make_folder, strict_json, write_atomic
from ccnet.runtime.cli.options import (
    ARTIFACTS_FOLDER,
    TILE_FLAGS,
    ArtifactsArgument,
    DeviceOption,
    InputSpaceOption,
    JsonFlag,
    ThreadsOption,
    WeightsOption,
)

from .references import ReferenceFrame, reference_frames
from .tables import print_artifacts, print_comparisons, print_facts

if TYPE_CHECKING:
    from rich.status import Status

    from ccnet.export.verify import Comparison

app = typer.Typer()


@app.command()
def check(
    folder: ArtifactsArgument = ARTIFACTS_FOLDER,
    frames: Annotated[
        list[Path] | None,
        typer.Option(
            "--frames",
            "-f",
            help="Frame, or folder of frames, may be repeated; if none, a bundle's golden outputs are compared.",
        ),
    ] = None,
    weights: WeightsOption = None,
    tile: Annotated[
        int, typer.Option(*TILE_FLAGS, help="Side of a tile in the tiled runs, px, a multiple of 16.")
    ] = 320,
    input_space: InputSpaceOption = "srgb",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for check.json and each frame's cube (.mat, .hdr) and pictures."),
    ] = None,
    device: DeviceOption = 0,
    threads: ThreadsOption = None,
    as_json: JsonFlag = False,
    force: Annotated[bool, typer.Option("--force", help="Check again even where --out holds this very check.")] = False,
) -> None:
    """Compare the artifacts with PyTorch, in a table, by the project's table of tolerances; exit code 1 if one fails.

    ONNX Runtime on the CPU runs every frame, and so do the engines that can run here. Without --frames, and so
    without torch, the golden outputs that came with a bundle are the reference. It also shows what a context from a
    reduced frame costs, which no tolerance judges.
    """
    from rich.console import Console

    from ccnet.export.fingerprint import CHECKED, check_fingerprint, has_passed
    from ccnet.runtime.io.frames import frame_paths

    limit_cores(threads)
    console = Console(stderr=True)
    paths = frame_paths(frames) if frames else []
    opened = ArtifactFolder.open(folder)
    fingerprint = check_fingerprint(
        opened, (weights or SHIPPED_WEIGHTS) if paths else None, paths, (tile, input_space), device
    )
    if out is not None and not force and not as_json and has_passed(out, opened, fingerprint):
        console.print(f"{out}: up to date, this check has passed before (--force repeats it)", highlight=False)
        return
    if not as_json:
        print_artifacts(opened)
    results: dict[str, list[Comparison]] = {}
    with console.status("check") as status:
        for frame in reference_frames(opened, paths, weights, input_space):
            results[frame.name] = _check_frame(opened, frame, tile, device, out, status, quiet=as_json)
    document = {name: [_as_json(comparison) for comparison in comparisons] for name, comparisons in results.items()}
    broken = list(_broken(results))
    if out is not None:
        report = {"inputs": fingerprint, "passed": not broken, "frames": document}
        write_atomic(out / CHECKED, strict_json(report, 2).encode())
    if as_json:
        print(strict_json(document, indent=2))
    if broken:
        console.print("\n".join(("parity fails", *broken)), style="bold red", highlight=False)
        raise typer.Exit(1)


def _check_frame(
    folder: ArtifactFolder,
    frame: ReferenceFrame,
    tile: int,
    device: int,
    out: Path | None,
    status: Status,
    *,
    quiet: bool,
) -> list[Comparison]:
    """Compare on a frame, print the table, and write the frame's results to ``out``."""
    from ccnet.export.verify import check

    comparisons = []
    for comparison in check(folder, frame.reference, tile=tile, device=device):
        comparisons.append(comparison)
        status.update(f"{frame.name}: after {comparison.what}")
    if not quiet:
        print_comparisons(frame.name, frame.reference.frame.shape, comparisons)
    if out is not None:
        status.update(f"{frame.name}: cube and pictures")
        written = _write_results(folder, frame, comparisons, out, device)
        if not quiet:
            print_facts(written)
    return [replace(comparison, largest=None) for comparison in comparisons]  # drawn, and as large as the frame


def _broken(results: dict[str, list[Comparison]]) -> Iterator[str]:
    for name, comparisons in results.items():
        for comparison in comparisons:
            if broken := comparison.broken:
                yield f"{name}: {comparison.what}: {', '.join(broken)}"


def _write_results(
    folder: ArtifactFolder, frame: ReferenceFrame, comparisons: list[Comparison], out: Path, device: int
) -> dict[str, str]:
    """Reconstruct with the defaults that an integrator has; write cubes and pictures, and return facts about them."""
    from ccnet.runtime import Reconstructor, open_cube
    from ccnet.runtime.viz.plots import picture

    make_folder(out)
    name, pixels = Path(frame.name).stem, frame.reference.frame
    with Reconstructor.open(folder, input_space="camera", device=device) as reconstructor:
        reconstructor(pixels)  # the first run of a shape plans its memory
        started = time.perf_counter()
        cube = reconstructor(pixels)
        ms = 1e3 * (time.perf_counter() - started)
        describe = reconstructor.describe()
    written = {key: describe[key] for key in ("backend", "graph", "precision")} | {"ms per frame": f"{ms:.0f}"}
    for suffix, kind in ((".mat", "NTIRE cube"), (".hdr", "ENVI cube")):
        target = out / f"{name}{suffix}"
        with open_cube(target, pixels.shape[0], pixels.shape[1], {"source": frame.name}) as writer:
            writer.write(0, cube)
        written[kind] = str(target)
    picture(frame.picture, cube, out / f"{name}.png")
    written["picture"] = str(out / f"{name}.png")
    return written | _draw_worst(frame, comparisons, out / f"{name}-worst.png")


def _draw_worst(frame: ReferenceFrame, comparisons: list[Comparison], target: Path) -> dict[str, str]:
    """Draw the comparison that uses most of its tolerance; a context is no picture and never drawn."""
    from ccnet.runtime.viz.plots import difference

    drawable = [(comparison, comparison.largest) for comparison in comparisons if comparison.largest]
    if not drawable:
        return {}
    worst, largest = max(drawable, key=lambda pair: pair[0].tolerance_used)
    title = f"{worst.what} against {worst.against}"
    difference(frame.picture, largest.differences, largest.pixel, largest.expected, largest.actual, title, target)
    return {"worst comparison": str(target)}


def _as_json(comparison: Comparison) -> dict[str, object]:
    values = asdict(replace(comparison, largest=None)) | {"broken": comparison.broken}
    del values["largest"]
    return values
