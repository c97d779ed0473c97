"""``ccnet build``: ONNX graphs → TensorRT engines."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccnet.contract import ArtifactFolder, CCNetError
from ccnet.export.engine.plan import Request
from ccnet.runtime.backends.select import Precision
from ccnet.runtime.cli.options import ARTIFACTS_FOLDER, TILE_FLAGS, ArtifactsArgument, DeviceOption, WaitOption
from ccnet.runtime.io.artifact_lock import LOCK_NAME, lock_artifacts

from .tables import print_artifacts

if TYPE_CHECKING:
    from rich.console import Console

    from ccnet.export.engine.plan import EngineSet, Job

app = typer.Typer()


@app.command()
def build(
    folder: ArtifactsArgument = ARTIFACTS_FOLDER,
    backend: Annotated[
        Request, typer.Option(help="Engine to build; auto: tensorrt if there is a GPU for it, else tensorrt-rtx.")
    ] = "auto",
    precision: Annotated[
        Precision,
        typer.Option(help="Precision of decode and full; encode is fp32. int8 needs 'ccnet calibrate int8' first."),
    ] = "fp16",
    tile: Annotated[
        int | None,
        typer.Option(
            *TILE_FLAGS,
            help="Largest side of a tile in px, a multiple of 16; 512 by default, unless --memory decides it.",
        ),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(
            help="MB of GPU memory that the engines may take beside their weights; decides the tile and the largest"
            " frame of encode, and limits scratch memory."
        ),
    ] = None,
    static: Annotated[
        bool, typer.Option("--static", help="Decode takes tiles of exactly that side, instead of all up to it.")
    ] = False,
    compatible: Annotated[
        bool,
        typer.Option("--compatible", help="tensorrt only: runs with later versions and on other GPUs; may be slower."),
    ] = False,
    strip: Annotated[
        bool,
        typer.Option(
            "--strip",
            help="Leave the weights out of the engines: they come from the graph, new ones need no new build.",
        ),
    ] = False,
    plugin: Annotated[
        bool,
        typer.Option("--plugin", help="tensorrt only: NeSCM as one kernel of this package; no GPU has run it yet."),
    ] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full/--no-full",
            help="Build full, too, which does a frame of one tile in one pass; streams that keep a context need none.",
        ),
    ] = True,
    device: DeviceOption = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be built and why, and build nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Build again even where nothing has changed.")] = False,
    wait: WaitOption = True,
) -> None:
    """Build engines from the ONNX graphs, with a note on where each of them runs.

    An engine whose graph, options, TensorRT and GPU are as before is not built again. ONNX Runtime runs the graphs as
    they are and needs no engine.
    """
    from ccnet.export.engine.budget import DECODE_SIDE
    from ccnet.export.engine.plan import EngineSet, choose, left_out, plan

    console = _console()
    chosen, why = choose(backend, device)
    if chosen is None:
        console.print(f"no engine built: {why}")
        return
    if tile is not None and memory is not None:
        raise CCNetError("--tile and --memory both decide the tile: give only one of them")
    wanted = EngineSet(
        backend=chosen,
        precision=precision,
        tile=tile or DECODE_SIDE,
        static=static,
        compatible=compatible,
        strip=strip,
        device=device,
        plugin=plugin,
        full=full,
    )
    with nullcontext() if dry_run else _lock(folder, wait, console):
        artifacts = ArtifactFolder.open(folder)
        if memory is not None:
            wanted = wanted.within(int(memory * 1e6), artifacts.manifest)
        jobs, unwanted = plan(artifacts, wanted, force=force), left_out(artifacts, wanted)
        for artifact in unwanted:
            console.print(f"{artifact.file}: to remove, it is left out")
        if not dry_run and not unwanted and not any(job.why for job in jobs):
            console.print(f"{folder}: engines are up to date, nothing to build")
            return
        console.print(f"engines of {chosen}: {why}")
        if full and not any(job.source.kind == "full" for job in jobs):
            console.print(f"no engine of full: the folder has no graph of it in {precision}; frames take two passes")
        for job in jobs:
            console.print(_description(job))
        if not dry_run:
            _build(artifacts, wanted, force)


def _lock(folder: Path, wait: bool, console: Console) -> AbstractContextManager[None]:
    """Return the folder's lock; a CCNetError, with nothing left on the disk, if no export has been to the folder."""
    if not (folder / LOCK_NAME).exists():
        ArtifactFolder.open(folder)
    return lock_artifacts(folder, wait=wait, say=console.print)


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def _description(job: Job) -> str:
    shapes = " to ".join("×".join(map(str, shape)) for shape in dict.fromkeys((job.shapes[0], job.shapes[2])))
    state = f"to build, {job.why}" if job.why else "up to date"
    return f"{job.file}: of {job.source.file}, rgb {shapes}: {state}"


def _build(artifacts: ArtifactFolder, wanted: EngineSet, force: bool) -> None:
    from rich.progress import Progress

    from ccnet.export.engine import plan as builds

    console = _console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"build {wanted.backend}", total=None)

        def progress(phase: str, done: int, steps: int) -> None:
            bar.update(task, description=f"{phase[:60]:60}", completed=done, total=steps)

        _, reports = builds.build(artifacts, wanted, force=force, progress=progress)
    for report in reports:
        types = ", ".join(f"{count} {name}" for name, count in sorted(report.types.items()))
        size = f"{report.bytes / 1e6:.0f} MB" if report.bytes > 1e6 else f"{report.bytes / 1e3:.0f} kB"
        console.print(f"built in {report.seconds:.0f} s: {size} from {report.layers} layers ({types})")
        kernels = ", ".join(f"{part} {count}" for part, (count, _) in report.kernels.items())
        console.print(f"kernels: {kernels or 'not counted'}")
    for purpose in dict.fromkeys(report.purpose for report in reports):
        console.print(purpose)
    print_artifacts(artifacts)
