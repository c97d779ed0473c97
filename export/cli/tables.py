"""Tables that the commands print."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ccnet.contract import ArtifactFolder

if TYPE_CHECKING:
    from ccnet.export.verify import Comparison


def print_artifacts(folder: ArtifactFolder) -> None:
    """Print the files of an artifact folder with their sizes."""
    from rich.console import Console
    from rich.table import Table

    table = Table("artifact", "kind", "format", "precision", "MB", title=str(folder.path), title_justify="left")
    for artifact in folder.manifest.artifacts:
        size = (folder.path / artifact.file).stat().st_size / 1e6
        table.add_row(artifact.file, artifact.kind, artifact.format, artifact.precision, f"{size:.1f}")
    Console().print(table)


def print_comparisons(name: str, shape: tuple[int, ...], comparisons: Sequence[Comparison]) -> None:
    """Print the comparisons on a frame of shape (H, W, 3), grouped by backend."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    reference = comparisons[0].against
    title = f"{name}, {shape[1]}×{shape[0]} px, against {reference}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("what")
    for heading, width in {"MRAE": 7, "SAM °": 7, "PSNR dB": 5, "max": 7, "verdict": 8, "ms": 5}.items():
        table.add_column(heading, min_width=width)  # a narrow terminal wraps the words and cuts no figure
    for backend, group in itertools.groupby(comparisons, key=lambda comparison: comparison.backend):
        table.add_row(f"[italic]{backend}[/italic]")
        for comparison in group:
            table.add_row(*_cells(comparison, reference))
    Console().print(table)


def _cells(comparison: Comparison, reference: str) -> list[str]:
    what, against, parity = comparison.what, comparison.against, comparison.parity
    name = f"  {what}" if against == reference else f"  {what}, against {against}"
    if parity is None:
        return [name, *("-",) * 4, comparison.verdict, "-"]
    figures = (f"{parity.mrae:.1e}", f"{parity.sam:.1e}", f"{parity.psnr:.1f}", f"{parity.max_abs:.1e}")
    return [name, *figures, comparison.verdict, f"{comparison.ms:.0f}"]


def print_facts(facts: Mapping[str, str]) -> None:
    """Print names and values."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False)
    for name, value in facts.items():
        table.add_row(name, value)
    Console().print(table)
