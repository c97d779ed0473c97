"""``ccnet inspect``: what a file or folder holds, and what this machine can run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ccnet.contract import CCNetError

app = typer.Typer()


@app.command()
def inspect(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH",
            help="Artifact folder, .onnx, weights (.safetensors), cube (.hdr, .mat, .npy), frame or ROS 2 bag.",
        ),
    ] = None,
    environment: Annotated[
        bool,
        typer.Option("--environment", help="Show versions, processors, GPUs and backends, for a report of an issue."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print --environment as JSON.")] = False,
) -> None:
    """Show the content of a file or folder, or the environment.

    Content: sizes, precision, configuration, value ranges, and whether the files of an artifact folder are intact.
    """
    _check_arguments(path, environment, as_json)
    if path is not None:
        from .contents import describe_file

        print("\n\n".join(_columns(table) for table in describe_file(path)))
        return
    from .environment import describe_environment

    sections = describe_environment()
    if as_json:
        print(json.dumps(sections, indent=2))
    else:
        print(_columns([row for name, facts in sections.items() for row in [(name, ""), *_indented(facts)]]))


def _check_arguments(path: Path | None, environment: bool, as_json: bool) -> None:
    if path is None and not environment:
        raise CCNetError("Missing PATH: name a file or folder, or use --environment")
    if path is not None and environment:
        raise CCNetError("PATH and --environment exclude each other: use only one of them")
    if as_json and not environment:
        raise CCNetError("--json belongs to --environment: leave it out")


def _indented(facts: dict[str, str]) -> list[tuple[str, ...]]:
    return [(f"  {name}", value) for name, value in facts.items()]


def _columns(table: list[tuple[str, ...]]) -> str:
    """Return a table as aligned text; a character that a terminal might obey becomes ``?``."""
    rows = [["".join(c if c.isprintable() else "?" for c in cell) for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
