"""Print the results of calibration as tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from ccnet.calibration.fp16.ranges import Range, unfit

if TYPE_CHECKING:
    from ccnet.calibration.fp16.bisect import Bisection
    from ccnet.calibration.int8.search import SearchResult


def print_unfit(ranges: Sequence[Range]) -> None:
    """Print the ranges that do not fit: a row for each part of the network, operator, quantity and verdict.

    The same part occurs in every block, so that a row counts its tensors and shows the worst of them.
    """
    rows: dict[tuple[str, ...], list[Range]] = defaultdict(list)
    for tensor in unfit(ranges):
        rows[tensor.part, tensor.operator, tensor.what, tensor.verdict].append(tensor)
    table = Table()
    for title in ("part", "operator", "what", "of", "measured", "reason"):
        table.add_column(title, no_wrap=title not in ("what", "reason"))
    for (part, operator, what, verdict), tensors in rows.items():
        overflow = verdict == "overflow"
        worst = max(tensors, key=lambda tensor: tensor.bound if tensor.verdict == "overflow" else -tensor.smallest)
        measured = worst.largest if overflow else worst.smallest
        table.add_row(part, operator, what, str(len(tensors)), f"{measured:.1e}", worst.reason)
    if rows:
        Console().print(table)


def print_bounds(ranges: Sequence[Range], frames: int) -> None:
    """Print a row for each operator, and how many ranges fit.

    A row has the largest measured value of the operator's tensors, the largest share of subnormal values, and the
    largest bound of those that are proved and of those that rest on measurement.
    """
    activations = [tensor for tensor in ranges if tensor.what == "activation"]
    operators: dict[str, list[Range]] = defaultdict(list)
    for tensor in activations:
        operators[tensor.operator or "input"].append(tensor)
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False)
    for title in ("operator", "tensors", "measured", "subnormal", "proved", "at most", "16 × measured"):
        table.add_column(title, justify="left" if title == "operator" else "right", no_wrap=True)
    for operator, tensors in sorted(operators.items()):
        proved = [tensor.bound for tensor in tensors if tensor.proof == "proved"]
        measured = [tensor.bound for tensor in tensors if tensor.proof == "measured"]
        largest_bounds = (f"{max(bounds):.2g}" if bounds else "-" for bounds in (proved, measured))
        largest, lost = max(tensor.largest for tensor in tensors), max(tensor.subnormal for tensor in tensors)
        table.add_row(operator, str(len(tensors)), f"{largest:.3g}", f"{lost:.1%}", str(len(proved)), *largest_bounds)
    Console().print(table)
    fitting = [tensor for tensor in ranges if tensor.verdict == "fits"]
    certain = sum(tensor.proof == "proved" for tensor in fitting)
    top = max(activations, key=lambda tensor: tensor.largest)
    print(
        f"{len(fitting)} of {len(ranges)} ranges fit FP16 on {count_frames(frames)}, {certain} of them proved for any"
        f" frame; largest activation {top.largest:.3g} ({top.tensor})"
    )


def print_bisection(found: Bisection, frames: int, max_rows: int) -> None:
    """Print the groups with the largest shares, and the parities with and without the cause."""
    table = Table()
    for title in ("in FP16 alone", "nodes", "share", "MRAE", "max"):
        table.add_column(title, justify="left" if title == "in FP16 alone" else "right", no_wrap=True)
    for group in found.groups[:max_rows]:
        share = f"{group.share:.1%}" if group.share < float("inf") else "not finite"
        name = group.name if group.split or group.nodes == 1 else f"{group.name} (not split)"
        table.add_row(name, str(group.nodes), share, f"{group.parity.mrae:.1e}", f"{group.parity.max_abs:.1e}")
    Console().print(table)
    nodes = sum(group.nodes for group in found.named)
    print(f"all in FP16, on {count_frames(frames)}: {found.all}")
    print(f"all except the {len(found.named)} groups named here as the cause, {nodes} nodes: {found.rest}")
    print(f"the cause: {', '.join(group.name for group in found.named)}")


def print_variants(found: SearchResult) -> None:
    """Print a row for each variant that was tried in INT8."""
    table = Table()
    for title in ("observer", "layers", "INT8", "MRAE", "SAM °", "PSNR", "budget"):
        table.add_column(title, justify="left" if title in ("observer", "budget") else "right", no_wrap=True)
    for variant in found.variants:
        parity = variant.parity
        figures = (f"{parity.mrae:.1e}", f"{parity.sam:.1e}", f"{parity.psnr:.1f}")
        verdict = ("broken" if variant.broken else "kept") + ", best" * (variant is found.best)
        table.add_row(variant.observer, str(len(variant.layers)), f"{variant.share:.0%}", *figures, verdict)
    Console().print(table)


def print_rows(rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows of text; the first column is a name, the others are figures."""
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False)
    for index, title in enumerate(rows[0]):
        table.add_column(title, justify="right" if index else "left", no_wrap=index == 0)
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)


def describe_variant(found: SearchResult) -> str:
    """Return the chosen variant of a search in one line: its layers, its share of the work and its parity."""
    variant = found.final
    layers = f"{len(variant.layers)} layers, {variant.share:.0%} of the convolutions' multiply-adds"
    return f"{layers}, by {variant.observer}; on {count_frames(found.holdout_frames)} held back {variant.parity}"


def count_frames(count: int) -> str:
    """Return a number of frames in words: ``1 frame``, ``2 frames``."""
    return f"{count} frame{'s' * (count > 1)}"
