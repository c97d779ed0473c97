"""What ``ccnet bench`` found, as tables, a document and a picture; ratios first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ccnet.runtime.viz.style import LINE_COLOURS, new_figure, save_figure

from .inference import OURS, WAYS, Growth, Rates, Row
from .training import machine

Document = dict[str, Any]


def document(
    rows: Sequence[Row], grown: Sequence[Growth], limits: Rates, seconds: Mapping[str, float], run: Mapping[str, Any]
) -> Document:
    """What ``bench.json`` holds: times in milliseconds, rates in bytes and operations a second."""
    return {
        "machine": {**machine(), **asdict(limits)},
        "run": dict(run),
        "seconds": dict(seconds),
        "rows": [{**asdict(row), "ratios": {way: row.ratio(way) for way in row.ways}} for row in rows],
        "growth": [{**asdict(one), "per_megapixel": one.per_megapixel} for one in grown],
    }


def markdown(found: Document) -> str:
    """Tables for a page: how many times as long each way takes as ours, growth with a frame's size, and the rest."""
    here, rows = found["machine"], found["rows"]
    ways = [way for way in WAYS if any(way in row["ways"] for row in rows)]
    lines = [
        f"{here['cpu']} ({here['instructions']}), {found['run']['threads']} threads, torch {here['torch']};"
        f" copies {here['copy'] / 1e9:.1f} GB/s, multiplies {here['product'] / 1e9:.0f} GFLOP/s.",
        "",
        _line(["", "size, px", "ours, ms (least to most)", "floor, ms", "largest difference", *ways[1:]]),
        _line(["---", "---", *["---:"] * (len(ways) + 2)]),
    ]
    for row in rows:
        ours = row["ways"][OURS]
        size = "{}×{}".format(*row["size"])
        spread = "{} ({} to {})".format(*(_three_digits(ours[key]) for key in ("median", "least", "most")))
        floor = "–" if row["floor"] is None else _three_digits(row["floor"])
        difference = "–" if row["difference"] is None else f"{row['difference']:.0e}"
        ratios = [f"{row['ratios'][way]:.2f}×" if way in row["ratios"] else "–" for way in ways[1:]]
        lines.append(_line([row["name"], size, spread, floor, difference, *ratios]))
    lines += ["", _line(["frame, Mpx", "seconds", "seconds/Mpx", "peak memory, MB"]), _line(["---:"] * 4)]
    for one in found["growth"]:
        values = (
            f"{one['megapixels']:.2f}",
            f"{one['seconds']:.1f}",
            f"{one['per_megapixel']:.2f}",
            f"{one['peak_mb']:.0f}",
        )
        lines.append(_line(list(values)))
    lines += ["", _line(["once", "seconds"]), _line(["---", "---:"])]
    lines += [_line([name, f"{value:.1f}"]) for name, value in found["seconds"].items()]
    return "\n".join(lines) + "\n"


def _three_digits(value: float) -> str:
    return f"{float(f'{value:.3g}'):g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def picture(found: Document, path: Path) -> None:
    """Bars: how many times as long each way takes as ours, on a logarithmic axis; a line at 1."""
    rows = found["rows"]
    ways = [way for way in WAYS[1:] if any(way in row["ways"] for row in rows)]
    figure = new_figure(9, 1.2 + 0.17 * sum(len(row["ways"]) for row in rows))
    axes = figure.add_subplot()
    place, ticks = 0.0, []
    for row in rows:
        start = place
        for way in ways:
            if way in row["ratios"]:
                ratio = row["ratios"][way]
                axes.barh(place, ratio - 1, left=1, height=0.8, **_bar_style(ways.index(way)))
                axes.annotate(
                    f"{ratio:.2f}", (ratio, place), (2, 0), textcoords="offset points", fontsize=6, va="center"
                )
                place += 1
        ticks.append(((start + place - 1) / 2, "{} {}×{}".format(row["name"], *row["size"])))
        place += 1
    for index, way in enumerate(ways):
        axes.barh([0], [0], **_bar_style(index), label=way)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(*zip(*ticks, strict=True))
    axes.invert_yaxis()
    axes.set_xlabel(f"times as long as {OURS} (right of the line: slower than ours)")
    axes.legend(fontsize=7)
    save_figure(figure, path)


def _bar_style(index: int) -> dict[str, str]:
    """Return the colour of a bar, with a hatch from the second round through the palette on."""
    rounds, colour = divmod(index, len(LINE_COLOURS))
    return {"color": LINE_COLOURS[colour], "hatch": rounds * "//", "edgecolor": "white"}
