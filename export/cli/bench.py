"""``ccnet bench`` and ``ccnet bench-train``: timings on this CPU."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ccnet.contract import SHIPPED_WEIGHTS, available_cores, make_folder, strict_json, write_atomic
from ccnet.runtime.cli.options import ThreadsOption, WeightsOption

if TYPE_CHECKING:
    from ccnet.model import CCNet

app = typer.Typer()

Repeats = Annotated[int, typer.Option(min=1, help="Repetitions, in turns, after a first one that does not count.")]


@app.command()
def bench(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for bench.json, bench.md and bench.png.")] = Path(
        "build/bench"
    ),
    weights: WeightsOption = None,
    repeats: Repeats = 5,
    threads: ThreadsOption = None,
    quick: Annotated[bool, typer.Option("--quick", help="256 px at most, and no large frames.")] = False,
    against: Annotated[
        str | None,
        typer.Option(
            help="Compare whole frames with this network instead: an ONNX file, rgb (1, 3, H, W) → cube (1, 31, H, W),"
            " or mha for MST++'s design. Leaves against.json and against.md."
        ),
    ] = None,
) -> None:
    """Time CCNet beside the paper's loop, PyTorch and MST++'s design, or any other network, in turns, on this CPU.

    The whole of it takes about half an hour; nothing else should run meanwhile. GPUs are not measured.
    """
    import torch

    from ccnet.export.bench import host_overhead, report
    from ccnet.model.checkpoint import load_checkpoint

    threads = threads or available_cores()
    torch.set_num_threads(threads)
    make_folder(out)
    model = load_checkpoint(weights or SHIPPED_WEIGHTS)
    if against is not None:
        _compare(model, against, out, repeats, threads, quick)
        return
    document = _measure_all(model, repeats, threads, quick)
    text = report.markdown(document) + "\n" + host_overhead.markdown(document["host"])
    write_atomic(out / "bench.json", strict_json(document, 2).encode())
    write_atomic(out / "bench.md", text.encode())
    report.picture(document, out / "bench.png")
    typer.echo(text)


def _compare(model: CCNet, against: str, out: Path, repeats: int, threads: int, quick: bool) -> None:
    """Compare CCNet with a network that was exported elsewhere; write and print the result."""
    from rich.console import Console
    from rich.progress import track

    from ccnet.export.bench.against import MHA, QUICK_SIZES, SIZES, compare, document, markdown, sizes_for
    from ccnet.export.bench.networks import export_ccnet, export_mha
    from ccnet.export.bench.peer import Peer

    with tempfile.TemporaryDirectory() as scratch:
        path = export_mha(model, Path(scratch)) if against == MHA else Path(against)
        peer = Peer(path, threads)
        sizes = sizes_for(peer, QUICK_SIZES if quick else SIZES)
        folder = export_ccnet(model, Path(scratch))
        shown = track(sizes, "frames", console=Console(stderr=True), transient=True, auto_refresh=False)
        rows = [compare(folder, peer, size, repeats, threads) for size in shown]
    results = document(peer, rows, {"repeats": repeats, "threads": threads})
    text = markdown(results)
    write_atomic(out / "against.json", strict_json(results, 2).encode())
    write_atomic(out / "against.md", text.encode())
    typer.echo(text)


def _measure_all(model: CCNet, repeats: int, threads: int, quick: bool) -> dict[str, Any]:
    """Measure every part and size that ``ccnet bench`` reports; return the document of ``bench.json``."""
    from rich.console import Console
    from rich.progress import Progress

    from ccnet.export.bench import frames, host_overhead, inference, networks, report, roofline

    sizes, large = (inference.QUICK_SIZES, ()) if quick else (inference.SIZES, frames.LARGE_SIZES)
    rows, growth, seconds, console = [], [], {}, Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder, Progress(console=console, transient=True) as progress:
        task = progress.add_task("rates", total=3 + len(sizes) + len(large))
        rates, exported = roofline.measure_rates(), {}
        progress.update(task, description="export")
        for name, network in networks.export_networks(model, Path(folder)):
            exported[name] = network
            extras = "" if name == networks.LOOP else ", with FP16, operators and comparison"
            seconds[f"export, {name}{extras}"] = network.seconds
            progress.advance(task)
        seconds["load to a cube of 16 px, CCNet"] = frames.load_seconds(exported[networks.CCNET], threads)
        for part, size in sizes:
            progress.update(task, description=f"{part} {size[0]}×{size[1]}")
            rows.append(inference.measure(exported, part, size, repeats, threads, rates))
            median = rows[-1].timings[inference.FUSED].median
            console.print(f"{part} {size[0]}×{size[1]}: {median:.0f} ms", highlight=False)
            progress.advance(task)
        for size in large:
            progress.update(task, description=f"frame {size[0]}×{size[1]}")
            growth.append(frames.measure_growth(exported[networks.CCNET], size, threads))
            progress.advance(task)
    host = host_overhead.measure(host_overhead.SIZES[: 1 if quick else None], repeats)
    document = report.inference_document(rows, growth, rates, seconds, {"repeats": repeats, "threads": threads})
    return {**document, "host": host_overhead.document(host)}


@app.command("bench-train")
def bench_train(
    patch: Annotated[int, typer.Option(min=16, help="Side of a patch, px.")] = 128,
    batch: Annotated[list[int], typer.Option(min=1, help="Patches a step; may be repeated.")] = [1, 2],  # noqa: B006
    repeats: Repeats = 5,
    threads: ThreadsOption = None,
    out: Annotated[Path | None, typer.Option("--json", help="File for the figures.")] = None,
) -> None:
    """Time training with the paper's loop through autograd against training with the compiled kernels, on this CPU."""
    import torch
    from rich.console import Console
    from rich.progress import track

    from ccnet.export.bench import report, training
    from ccnet.model.config import CCNetConfig

    if threads:
        torch.set_num_threads(threads)
    cases, count = training.cases(CCNetConfig(), patch, batch), len(batch) + 4
    # No thread that redraws: it would take its time from a core that is measured
    shown = track(cases, "measures", count, console=Console(stderr=True), transient=True, auto_refresh=False)
    rows = [training.measure(name, works, repeats) for name, works in shown]
    Console().print(report.training_table(rows))
    if out:
        document = report.training_document(rows, {"patch": patch, "batches": batch, "repeats": repeats})
        write_atomic(out, strict_json(document, 2).encode())
