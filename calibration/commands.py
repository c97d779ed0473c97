"""``ccnet calibrate ranges``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccnet.contract import Manifest, plain_json, write_atomic

if TYPE_CHECKING:
    from ccnet.calibration.ranges import Range

app = typer.Typer()
calibrate = typer.Typer(help="Which precision a network's tensors need, measured on real frames.")
app.add_typer(calibrate, name="calibrate")


@calibrate.command()
def ranges(
    folder: Annotated[Path, typer.Argument(help="Folder made by 'ccnet export'.")] = Path("build/ccnet"),
    frames: Annotated[
        list[Path] | None,
        typer.Option("--frames", "-f", help="Frame, or folder of frames, all different; may be given several times."),
    ] = None,
    side: Annotated[
        int, typer.Option(help="Longest side in px of the centre crop that is run, a multiple of 16.")
    ] = 128,
    most: Annotated[int, typer.Option(help="Most frames to run: those that differ most from each other.")] = 16,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for the range of every tensor.")] = None,
) -> None:
    """What FP16 cannot hold: the range of every tensor of decode, and a verdict on each.

    Overflow: it may pass 65504. Underflow: a divisor, a norm's floor or the sum of squares in it comes below 6.1e-5,
    FP16's smallest normal number. It is a report: the exit code is 0 whatever does not fit.
    """
    from rich.console import Console

    from ccnet.calibration.frames import read_frames
    from ccnet.calibration.ranges import measure

    multiple = Manifest.read(folder).size_multiple
    crops = read_frames(frames or [], side=side, multiple=multiple, most=most)
    with Console(stderr=True).status(f"ranges of {len(crops)} frames"):
        found = measure(folder, list(crops.values()))
    if json_file is not None:
        write_atomic(json_file, _as_json(crops, found))
    _print(found, len(crops))


def _as_json(paths: Iterable[Path], found: list[Range]) -> bytes:
    tensors = [asdict(one) | {"verdict": one.verdict} for one in found]
    return plain_json({"frames": [str(path) for path in paths], "ranges": tensors}, indent=1).encode()


def _print(found: list[Range], frames: int) -> None:
    """A row for each part of the network, operator and verdict; the same part occurs in every block."""
    from rich.console import Console
    from rich.table import Table

    from ccnet.calibration.ranges import unfit

    rows: dict[tuple[str, ...], list[Range]] = defaultdict(list)
    for one in unfit(found):
        rows[one.part, one.operator, one.what, one.verdict].append(one)
    table = Table()
    for title in ("part", "operator", "what", "of", "seen", "reason"):
        table.add_column(title, no_wrap=title not in ("what", "reason"))
    for (part, operator, what, verdict), alike in rows.items():
        worst = max(alike, key=lambda one: one.bound if one.verdict == "overflow" else -one.smallest)
        seen = worst.largest if verdict == "overflow" else worst.smallest
        table.add_row(part, operator, what, str(len(alike)), f"{seen:.1e}", worst.reason)
    if rows:
        Console().print(table)
    activations = [one for one in found if one.what == "activation"]
    held = sum(one.verdict == "fits" for one in found)
    largest = max(activations, key=lambda one: one.largest)
    print(
        f"{held} of {len(found)} ranges fit FP16 on {frames} frame{'s' * (frames > 1)}; largest activation"
        f" {largest.largest:.3g} ({largest.tensor})"
    )
