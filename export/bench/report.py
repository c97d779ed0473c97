"""The results of ``ccnet bench`` and ``ccnet bench-train`` as tables, documents and a picture; ratios first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccnet.runtime.viz.style import LINE_COLOURS, new_figure, save_figure

from . import training
from .frames import Growth
from .inference import FUSED, VARIANTS, Row
from .roofline import Rates
from .timing import Measurement, Timing, machine

if TYPE_CHECKING:
    from rich.table import Table

Document = dict[str, Any]


def inference_document(
    rows: Sequence[Row], growth: Sequence[Growth], rates: Rates, seconds: Mapping[str, float], run: Mapping[str, Any]
) -> Document:
    """Return the content of ``bench.json``: times in milliseconds, rates in bytes and operations per second."""
    return {
        "machine": {**machine(), **asdict(rates)},
        "run": dict(run),
        "seconds": dict(seconds),
        "rows": [_row(row) for row in rows],
        "growth": [{**asdict(frame), "per_megapixel": frame.per_megapixel} for frame in growth],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "size": row.size,
        "ways": {variant: asdict(timing) for variant, timing in row.timings.items()},
        "floor": row.roofline,
        "difference": row.difference,
        "ratios": {variant: row.ratio(variant, FUSED) for variant in row.timings},
    }


def markdown(document: Document) -> str:
    """Return tables for a page: each variant's time relative to CCNet's, the growth with a frame's size, the rest."""
    machine, rows = document["machine"], document["rows"]
    others = [variant for variant in VARIANTS[1:] if any(variant in row["ways"] for row in rows)]
    lines = [
        f"{machine['cpu']} ({machine['instructions']}), {document['run']['threads']} threads, torch {machine['torch']};"
        f" copies {machine['copy'] / 1e9:.1f} GB/s, multiplies {machine['product'] / 1e9:.0f} GFLOP/s.",
        "",
        _line(["", "size, px", "CCNet, ms (least to most)", "roofline, ms", "largest difference", *others]),
        _line(["---", "---", *["---:"] * (len(others) + 3)]),
        *(_line(_cells(row, others)) for row in rows),
    ]
    lines += ["", _line(["frame, Mpx", "seconds", "seconds/Mpx", "peak memory, MB"]), _line(["---:"] * 4)]
    for frame in document["growth"]:
        figures = ((frame["megapixels"], 2), (frame["seconds"], 1), (frame["per_megapixel"], 2), (frame["peak_mb"], 0))
        lines.append(_line([f"{value:.{digits}f}" for value, digits in figures]))
    lines += ["", _line(["once", "seconds"]), _line(["---", "---:"])]
    lines += [_line([name, f"{value:.1f}"]) for name, value in document["seconds"].items()]
    return "\n".join(lines) + "\n"


def _cells(row: Mapping[str, Any], others: Sequence[str]) -> list[str]:
    timing = row["ways"][FUSED]
    spread = "{} ({} to {})".format(*(_three_digits(timing[key]) for key in ("median", "least", "most")))
    floor = "–" if row["floor"] is None else _three_digits(row["floor"])
    difference = "–" if row["difference"] is None else f"{row['difference']:.0e}"
    ratios = [f"{row['ratios'][variant]:.2f}×" if variant in row["ratios"] else "–" for variant in others]
    return [row["name"], "{}×{}".format(*row["size"]), spread, floor, difference, *ratios]


def _three_digits(value: float) -> str:
    return f"{float(f'{value:.3g}'):g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def picture(document: Document, path: Path) -> None:
    """Draw bars: each variant's time relative to CCNet's, on a logarithmic axis with a line at 1."""
    from matplotlib.ticker import LogLocator, NullLocator

    rows = document["rows"]
    others = [variant for variant in VARIANTS[1:] if any(variant in row["ways"] for row in rows)]
    figure = new_figure(9, 1.2 + 0.17 * sum(len(row["ways"]) for row in rows))
    axes = figure.add_subplot()
    place, ticks = 0.0, []
    for row in rows:
        start = place
        for variant in others:
            if variant in row["ratios"]:
                _draw_bar(axes, place, row["ratios"][variant], others.index(variant))
                place += 1
        ticks.append(((start + place - 1) / 2, "{} {}×{}".format(row["name"], *row["size"])))
        place += 1
    for index, variant in enumerate(others):
        axes.barh([0], [0], **_bar_style(index), label=variant)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(y=0.01)
    axes.set_yticks(*zip(*ticks, strict=True))
    axes.invert_yaxis()
    axes.set_xlabel(f"times as long as {FUSED} (right of the line: slower than CCNet)")
    axes.legend(fontsize=7)
    save_figure(figure, path)


def _bar_style(index: int) -> dict[str, str]:
    """Return the colour of a bar, with a hatch from the second round through the palette on."""
    rounds, colour = divmod(index, len(LINE_COLOURS))
    return {"color": LINE_COLOURS[colour], "hatch": rounds * "//", "edgecolor": "white"}


def _draw_bar(axes: Any, place: float, ratio: float, index: int) -> None:
    axes.barh(place, ratio - 1, left=1, height=0.8, **_bar_style(index))
    gap, side = (2, "left") if ratio > 1 else (-2, "right")  # beside the bar's end, away from the line at 1
    axes.annotate(
        f"{ratio:.2f}", (ratio, place), (gap, 0), textcoords="offset points", fontsize=6, va="center", ha=side
    )


def training_document(rows: Sequence[Measurement], run: Mapping[str, Any]) -> Document:
    """Return the content of ``bench-train --json``: times in milliseconds."""
    comparisons = [
        {
            "name": row.name.replace("\n", " "),
            "naive": asdict(row.timings[training.REFERENCE]),
            "ours": asdict(row.timings[training.CCNET]),
            "ratio": row.ratio(training.REFERENCE, training.CCNET),
        }
        for row in rows
    ]
    return {"machine": machine(), "run": dict(run), "comparisons": comparisons}


def training_table(rows: Sequence[Measurement]) -> Table:
    """Return the table of ``bench-train``: ratios first; medians, and the extremes below them."""
    from rich.table import Table

    caption = "{cpu} ({instructions}), {cores} cores, {threads} threads, torch {torch}".format(**machine())
    table = Table("forward and backward", caption=caption, caption_justify="left")
    for heading in ("times\nas fast", "the paper's loop, autograd\nms, least to most", "CCNet\nms, least to most"):
        table.add_column(heading, justify="right")
    for row in rows:
        reference, ccnet = row.timings[training.REFERENCE], row.timings[training.CCNET]
        ratio = row.ratio(training.REFERENCE, training.CCNET)
        table.add_row(row.name, f"{ratio:.1f}", _cell(reference), _cell(ccnet))
    return table


def _cell(timing: Timing) -> str:
    return f"{timing.median:.1f}\n{timing.least:.1f} to {timing.most:.1f}"
