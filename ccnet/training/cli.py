"""``ccnet train``, ``evaluate``, ``ablate``, ``simulate``."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ccnet.contract import SHIPPED_WEIGHTS, CCNetError, make_folder, strict_json, write_atomic
from ccnet.data.camera import Track

from .recipe import PRESETS, Recipe

if TYPE_CHECKING:
    from ccnet.data.datasets import Split
    from ccnet.data.patches import SceneDataset
    from ccnet.evaluation.evaluate import Infer, Score
    from ccnet.model import CCNet
    from ccnet.model.config import CCNetConfig

    from .ablation_study import Ablation
    from .trainer import Trainer

app = typer.Typer()

PAPER, SHORT = PRESETS["paper"], PRESETS["short"]

Device = Annotated[
    Literal["cpu", "cuda"] | None, typer.Option(help="Where to compute; the GPU if there is one, when not given.")
]
Cameras = Annotated[
    list[Path] | None,
    typer.Option("--camera", help="Camera response (.json, .csv, .npz) or a folder of them, may be repeated: makes the"
                 " frames, of each patch by one of them; the published frames, when not given."),
]  # fmt: skip
IlluminantFile = Annotated[
    Path | None, typer.Option(help="Light on the scenes (.json, .csv, .npz); equal energy, when not given.")
]
Imagings = Annotated[Track, typer.Option(help="clean: Eq. 2 alone; real: noise, 8 bits and JPEG.")]
Exposure = Annotated[
    tuple[float, float],
    typer.Option(metavar="LOWEST HIGHEST", help="Factors of an exposure error, drawn for each frame; the cube stays."),
]
TrainingCubes = Annotated[
    str,
    typer.Option(
        help="Cubes to learn from: KIND:PATH, KIND one of cave, ntire2022, ntire2020-clean, ntire2020-real, envi."
    ),
]
ValidationCubes = Annotated[str, typer.Option(help="Cubes to validate on, likewise; a published split is kept.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Patches an update, over all processes.")]
PatchSide = Annotated[int | None, typer.Option(min=1, help="Side of a patch, px.")]
ConfigFields = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Part of the network, e.g. units=1 or fusion=add; may be repeated."),
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; as many as cores, when not given.")]
BFloat16 = Annotated[bool, typer.Option("--bf16", help="Convolutions in bfloat16, for hardware that has it.")]
Memory = Annotated[
    float,
    typer.Option(
        min=0, metavar="GB", help="Training cubes kept in memory by each process; the others are read each time."
    ),
]


@app.command()
def train(
    data: TrainingCubes,
    val: ValidationCubes,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; one that holds this run resumes it.")],
    camera: Cameras = None,
    illuminant: IlluminantFile = None,
    track: Imagings = "clean",
    exposure: Exposure = (1.0, 1.0),
    preset: Annotated[
        Literal["paper", "short"],
        typer.Option(help="paper: its recipe, which wants a GPU. short: small batches for --minutes."),
    ] = "paper",
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Time budget, instead of --steps: as many steps as fit into it.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Adam updates.")] = None,
    batch: BatchSize = None,
    patch: PatchSide = None,
    lr: Annotated[float | None, typer.Option(min=0, help="Learning rate after warm-up; a cosine ends it.")] = None,
    warmup: Annotated[int | None, typer.Option(min=0, help="Steps of linear rise.")] = None,
    bf16: BFloat16 = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights and the patches.")] = 0,
    evaluate_every: Annotated[int | None, typer.Option(min=1, help="Steps between validations.")] = None,
    save_every: Annotated[int | None, typer.Option(min=1, help="Steps between saves of the run.")] = None,
    config: ConfigFields = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Weights (.safetensors) to start from, instead of random ones.")
    ] = None,
    memory: Memory = 8,
    threads: Threads = None,
    device: Device = None,
) -> None:
    """Train CCNet on hyperspectral cubes and the frames that cameras make of them.

    The folder gets best.safetensors, the weights of the best validation, last.safetensors, from which the same
    command goes on after an interruption, and curves for TensorBoard. Several GPUs: torchrun --nproc-per-node N
    .venv/bin/ccnet train, with the same options.
    """
    from ccnet.model.checkpoint import load_checkpoint

    from .trainer import Trainer, planned_steps, process_group, steps_within

    given: dict[str, Any] = {
        "steps": steps, "batch": batch, "patch": patch, "lr": lr, "warmup": warmup, "bf16": bf16, "seed": seed,
        "evaluate_every": evaluate_every, "save_every": save_every,
    }  # fmt: skip
    if minutes is not None and steps is not None:
        raise CCNetError("--minutes and --steps are both given: one of them ends the run, leave the other out")
    if preset == "short" and minutes is None and steps is None:
        raise CCNetError("--preset short has no length of its own: give --minutes, or --steps")
    recipe = replace(PRESETS[preset], **{name: value for name, value in given.items() if value is not None})
    recipe = replace(recipe, final_lr=min(recipe.final_lr, recipe.lr))
    network = _config(config or [])
    with process_group(_compute_on(device, threads)) as chosen:
        _check_bfloat16(recipe, chosen)
        seen = _views(data, "train", camera, illuminant, track, exposure, memory)
        held = _views(val, "val", camera, illuminant, track, exposure)
        if minutes is not None:
            planned = planned_steps(out)
            if planned:
                typer.echo(
                    f"{out}: goes on with the {planned} steps that it began with, whatever --minutes says", err=True
                )
            recipe = replace(recipe, steps=planned or steps_within(minutes, network, recipe, seen, held, chosen))
        trainer = Trainer(out, network, recipe, seen, held, chosen, load_checkpoint(start) if start else None)
        _run_with_progress(trainer)
        if trainer.update.rank == 0:
            best = f"MRAE {trainer.best.mrae:.4f}, PSNR {trainer.best.psnr:.2f} dB on {len(held)} scenes"
            typer.echo(f"{trainer.folder / 'best.safetensors'}: {best}")
            typer.echo(f"{trainer.last}: step {trainer.step} of {recipe.steps}, trained on {chosen}")


@app.command()
def ablate(
    data: TrainingCubes,
    val: ValidationCubes,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the runs and the tables; runs that it holds are kept.")
    ],
    camera: Cameras = None,
    illuminant: IlluminantFile = None,
    track: Imagings = "clean",
    exposure: Exposure = (1.0, 1.0),
    table: Annotated[
        list[str] | None,
        typer.Option(help="II, III, IV or V; may be repeated; all four, when not given."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each network, with seeds 0, 1, …")] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Adam updates of each training.")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.1, help="Time for all trainings, by the pace of the first network, instead of --steps."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Patches an update.")] = SHORT.batch,
    patch: Annotated[int, typer.Option(min=1, help="Side of a patch, px.")] = SHORT.patch,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate after warm-up; a cosine ends it.")] = PAPER.lr,
    warmup: Annotated[int, typer.Option(min=0, help="Steps of linear rise.")] = SHORT.warmup,
    bf16: BFloat16 = False,
    config: ConfigFields = None,
    memory: Memory = 8,
    threads: Threads = None,
    device: Device = None,
) -> None:
    """Train the paper's ablations (Tables II to V) alike, and make its four tables.

    Every network sees the same batches for as many steps, and is judged after the last one on whole scenes. The
    folder gets tables.md and tables.json. The same command goes on after an interruption.
    """
    from rich.console import Console

    from ccnet.model.ablations import TABLES

    from .ablation_study import Ablation, markdown, plan, report
    from .ablation_study import table as show
    from .trainer import planned_steps, steps_within

    if (steps is None) == (minutes is None):
        raise CCNetError("expected --steps or --minutes, and not both: one of them ends each training")
    if unknown := sorted(set(table or []) - set(TABLES)):
        raise CCNetError(f"--table {unknown[0]}: the paper's ablation tables are {', '.join(TABLES)}")
    chosen, tables, base = _compute_on(device, threads), table or list(TABLES), _config(config or [])
    seen = _views(data, "train", camera, illuminant, track, exposure, memory)
    held = _views(val, "val", camera, illuminant, track, exposure)
    runs = plan(tables, base, range(seeds))
    final_lr = min(PAPER.final_lr, lr)
    recipe = Recipe(steps=1, batch=batch, patch=patch, lr=lr, final_lr=final_lr, warmup=warmup, bf16=bf16)
    _check_bfloat16(recipe, chosen)
    if steps is None and minutes is not None:
        steps = planned_steps(out / runs[0].name) or steps_within(
            minutes / len(runs), base, replace(recipe, evaluate_every=10**9), seen, held, chosen
        )
    ablation = Ablation(out, runs, replace(recipe, steps=steps or 1), seen, held, chosen)
    _ablate_with_progress(ablation)
    rows = ablation.rows(tables, base)
    Console().print(*(show(name, of_table) for name, of_table in rows.items()), sep="\n")
    document = _seen(seen, track, illuminant) | {
        "data": data, "val": val, "recipe": asdict(ablation.recipe), "config": base.to_dict(),
        "seeds": list(range(seeds)), "device": chosen, "versions": _versions(), "tables": report(rows),
    }  # fmt: skip
    write_atomic(out / "tables.json", strict_json(document, 2).encode())
    write_atomic(out / "tables.md", markdown(rows).encode())
    typer.echo(f"{out / 'tables.md'}: {len(runs)} trainings of {ablation.recipe.steps} steps, on {chosen}")


@app.command()
def evaluate(
    data: Annotated[str, typer.Option(help="Cubes to judge on: KIND:PATH, as train takes them; its validation split.")],
    weights: Annotated[
        list[Path] | None,
        typer.Option("--weights", "-w", help="Weights (.safetensors), may be repeated; the package's, when not given."),
    ] = None,
    fit: Annotated[
        str | None, typer.Option("--train", help="Cubes to fit regressions on, KIND:PATH; none are, when not given.")
    ] = None,
    camera: Cameras = None,
    illuminant: IlluminantFile = None,
    track: Imagings = "clean",
    exposure: Exposure = (1.0, 1.0),
    ensembles: Annotated[
        bool, typer.Option("--ensemble", help="Each network also as the mean over eight mirrored and rotated views.")
    ] = False,
    scale: Annotated[
        list[float] | None, typer.Option(min=0.1, max=4, help="Scales of --ensemble, may be repeated; 1 alone if none.")
    ] = None,
    per_scene: Annotated[bool, typer.Option("--per-scene", help="A table for every scene as well.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for metrics.json, bands.png and a picture of each scene.")
    ] = None,
    threads: Threads = None,
    device: Device = None,
) -> None:
    """Judge networks on cubes with known truth, beside linear and root-polynomial regression from RGB.

    MRAE is |d| / (Y + 0.02), and |d| / Y as NTIRE has it, which zeros in the truth leave undefined; PSNR is for a peak
    of 1. Nothing is clipped. docs/metrics.md has all definitions.
    """
    import torch
    from rich.console import Console

    from ccnet.evaluation.evaluate import gains, method_names, networks, regressions, report, selfchecks
    from ccnet.evaluation.report import draw_bands, tables
    from ccnet.model.checkpoint import load_checkpoint

    if scale and not ensembles:
        raise CCNetError(f"--scale {scale[0]:g} is given, which is of the ensemble: give --ensemble with it")
    chosen = _compute_on(device, threads)
    files = method_names(weights or [SHIPPED_WEIGHTS])
    models = {name: load_checkpoint(path).to(chosen) for name, path in files.items()}
    methods = networks(models, (scale or (1.0,)) if ensembles else ())
    views = _views(data, "val", camera, illuminant, track, exposure, memory=0)  # each scene is looked at once
    if out:
        make_folder(out)
    for note in _strangers(files, views):
        typer.echo(note, err=True)
    if fit:
        methods |= regressions(_views(fit, "train", camera, illuminant, track, exposure, memory=0))

    scores = _judge(methods, views, out)
    Console().print(*tables(scores, per_scene), sep="\n")
    for line in (*selfchecks(scores), *gains(scores)):
        typer.echo(line)
    if out:
        run = _seen(views, track, illuminant) | {
            "data": data, "train": fit, "scales": (scale or [1.0]) if ensembles else [],
            "weights": _weights(files, models), "device": chosen, "threads": torch.get_num_threads(),
            "versions": _versions(),
        }  # fmt: skip
        document = report(scores) | {"run": run}
        bands = {method: figures["full"]["mean"]["band_rmse"] for method, figures in document["methods"].items()}
        draw_bands(out / "bands.png", bands)
        write_atomic(out / "metrics.json", strict_json(document, 2).encode())
        typer.echo(f"{out / 'metrics.json'}: {len(methods)} methods on {len(views)} scenes; pictures are beside it")


@app.command()
def simulate(
    source: Annotated[str, typer.Argument(help="Cubes to look at: KIND:PATH, as train takes them.")],
    camera: Annotated[
        list[Path], typer.Option(help="Camera response (.json, .csv, .npz), or a folder of them; may be repeated.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the frames; one inside it for each of several cameras.")
    ],
    illuminant: Annotated[
        Path | None, typer.Option(help="Light (.json, .csv, .npz); equal energy, when not given.")
    ] = None,
    track: Annotated[Track, typer.Option(help="clean: Eq. 2 alone, 16 bits; real: noise, 8 bits and JPEG.")] = "clean",
    exposure: Exposure = (1.0, 1.0),
    split: Annotated[Literal["train", "val"], typer.Option(help="Of a data set that has published ones.")] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.")] = 0,
) -> None:
    """Make the RGB frames that cameras would take of hyperspectral cubes.

    Frames are PNGs of linear light, white-balanced; 'ccnet reconstruct --input-space camera' reads them.
    """
    from rich.console import Console
    from rich.progress import track as progress

    from ccnet.data.camera import TRACKS, read_cameras
    from ccnet.data.datasets import open_source
    from ccnet.data.simulate import frame_folders, simulate

    cameras, scenes = read_cameras(camera, illuminant), open_source(source, split)
    written = simulate(scenes, cameras, replace(TRACKS[track], exposure=exposure), out, seed)
    console = Console(stderr=True)
    for _ in progress(written, "frames", len(scenes) * len(cameras), console=console, transient=True):
        pass
    for eye, folder in zip(cameras, frame_folders(cameras, out), strict=True):
        typer.echo(f"{folder}: {len(scenes)} frames of {eye.name}, {track} track")


def _judge(methods: Mapping[str, Infer], views: SceneDataset, out: Path | None) -> dict[str, list[Score]]:
    """Method → its scores, scene by scene; a picture of each scene into a folder, if given, and a bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    from ccnet.evaluation.evaluate import compare
    from ccnet.evaluation.report import draw_scene

    scores: dict[str, list[Score]] = {method: [] for method in methods}
    console, total = Console(stderr=True), len(methods) * len(views)
    judged = track(compare(methods, views), "scenes", total, console=console, transient=True)
    for index, group in itertools.groupby(judged, key=lambda estimate: estimate.index):
        of_scene = {estimate.method: estimate for estimate in group}
        for method, estimate in of_scene.items():
            scores[method].append(estimate.score)
        if out:
            name, cubes = views.scenes[index].name, {method: estimate.cube for method, estimate in of_scene.items()}
            draw_scene(out / f"{index + 1:03d}-{name}.png", name, estimate.frame, estimate.truth, cubes)
    return scores


def _seen(views: SceneDataset, track: Track, illuminant: Path | None) -> dict[str, Any]:
    """How frames were made of the cubes, for reports."""
    return {
        "cameras": [eye.name for eye in views.cameras], "track": track, "exposure": views.imaging.exposure,
        "illuminant": illuminant and str(illuminant),
    }  # fmt: skip


def _strangers(files: Mapping[str, Path], views: SceneDataset) -> Iterator[str]:
    """A line for all weights whose camera is known and did not make the frames: their figures say little."""
    from ccnet.model.checkpoint import checkpoint_camera

    for method, path in files.items():
        camera = checkpoint_camera(path)
        others = [eye.name for eye in views.cameras if camera and (eye.response != camera.response).any()]
        if camera and others:
            yield f"{method}: its weights are for the camera {camera.name}, the frames are of {', '.join(others[:3])}"


def _weights(files: Mapping[str, Path], models: Mapping[str, CCNet]) -> dict[str, Any]:
    """Method → its file of weights, what tells these from all others, and the camera that they are for, if one."""
    from ccnet.model.checkpoint import checkpoint_camera, weights_hash

    cameras = {name: checkpoint_camera(path) for name, path in files.items()}
    return {
        name: {
            "file": str(files[name]),
            "sha256": weights_hash(model),
            "config": model.config.to_dict(),
            "camera": getattr(cameras[name], "name", None),
        }
        for name, model in models.items()
    }


def _versions() -> dict[str, str]:
    import platform

    import numpy as np
    import torch

    from ccnet import __version__

    return {
        "ccnet": __version__, "python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__
    }  # fmt: skip


def _run_with_progress(trainer: Trainer) -> None:
    """Run to the end: a bar with the last loss on a terminal, and a line for every validation."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TextColumn("left"), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=trainer.update.rank > 0) as progress:
        task = progress.add_task("starts", completed=trainer.step, total=trainer.recipe.steps)
        score = ""
        for event in trainer.run():
            if event.score:
                score = f"MRAE {event.score.mrae:.4f}, PSNR {event.score.psnr:.2f} dB"
                progress.console.print(f"step {event.step}: loss {event.loss:.4f}, lr {event.lr:.1e}, val {score}")
            progress.update(task, completed=event.step, description=f"loss {event.loss:.4f}  {score}")


def _ablate_with_progress(ablation: Ablation) -> None:
    """A bar over all steps of all trainings on a terminal, and a line for each training that is done."""
    from rich.console import Console
    from rich.progress import Progress

    steps = ablation.recipe.steps
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starts", total=steps * len(ablation.runs))
        for run, event in ablation.run():
            place = ablation.runs.index(run) * steps + (event.step if event else steps)
            progress.update(task, completed=place, description=run.name)
            if event is None:
                score = ablation.scores[run]
                progress.console.print(f"{run.name}: MRAE {score.mrae:.4f}, PSNR {score.psnr:.2f} dB")


def _views(
    source: str,
    split: Split,
    cameras: list[Path] | None,
    illuminant: Path | None,
    track: Track,
    exposure: tuple[float, float],
    memory: float = 8,
) -> SceneDataset:
    """The scenes of a source on the command line, as the cameras on it see them; memory: of cubes kept, in GB."""
    from ccnet.data.camera import TRACKS, read_cameras
    from ccnet.data.datasets import open_source
    from ccnet.data.patches import SceneDataset

    imaging = replace(TRACKS[track], exposure=exposure)
    if not cameras and (illuminant is not None or imaging != TRACKS["clean"]):
        raise CCNetError("--illuminant, --track and --exposure need a --camera: published frames stay as they are")
    eyes = read_cameras(cameras, illuminant) if cameras else ()
    kind, _, path = source.partition(":")
    where = f"{kind}:{Path(path).resolve()}"
    scenes = open_source(source, split)
    return SceneDataset(scenes=scenes, cameras=eyes, imaging=imaging, source=where, memory=int(memory * 1e9))


def _config(assignments: list[str]) -> CCNetConfig:
    """The paper's configuration with the fields that NAME=VALUE assigns."""
    from ccnet.model.config import CCNetConfig

    known = {field.name: field.default for field in fields(CCNetConfig)}
    values: dict[str, object] = {}
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        if name not in known:
            raise CCNetError(f"--config {assignment}: no field {name!r}, expected NAME=VALUE of {', '.join(known)}")
        values[name] = int(value) if isinstance(known[name], int) and value.isdecimal() else value
    return CCNetConfig.from_dict(values)


def _compute_on(device: str | None, threads: int | None) -> str:
    """The device that was asked for, or else the best there is; sets the number of CPU threads."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        raise CCNetError("device is cuda, but this torch sees no CUDA GPU: use --device cpu or install torch for CUDA")
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def _check_bfloat16(recipe: Recipe, device: str) -> None:
    """A word, by the first process, where bfloat16 was asked for and the CPU only emulates it."""
    import torch

    native = torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported()
    if recipe.bf16 and device == "cpu" and not native and os.environ.get("RANK", "0") == "0":
        typer.echo("bfloat16 is emulated by this CPU and many times slower than float32: leave --bf16 out", err=True)
