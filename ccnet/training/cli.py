"""``ccnet train`` and ``ccnet ablate``."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ccnet.contract import CCNetError, strict_json, write_atomic
from ccnet.contract.signals import call_on_stop_signals
from ccnet.data.options import (
    SOURCE_FORMAT,
    BrightnessOption,
    CameraOption,
    CameraShiftOption,
    ExposureOption,
    FrameOptions,
    HeldOutBrandOption,
    IlluminantOption,
    MeasuredOption,
    ShareOption,
    SurfaceShareOption,
    SurfacesOption,
    TrackOption,
    VariationOption,
)
from ccnet.evaluation.environment import DeviceOption, library_versions, select_device, warn_if_bfloat16_is_emulated
from ccnet.runtime.cli.options import ThreadsOption

from .recipe import PRESETS, Recipe

if TYPE_CHECKING:
    from ccnet.data.materials import Materials
    from ccnet.data.measured import MeasuredCameras
    from ccnet.data.patches import SceneDataset
    from ccnet.model.config import CCNetConfig

    from .trainer import Trainer

app = typer.Typer()

PAPER, SHORT = PRESETS["paper"], PRESETS["short"]

TrainingCubesOption = Annotated[str, typer.Option(help=f"Cubes to learn from: {SOURCE_FORMAT}.")]
ValidationCubesOption = Annotated[
    str, typer.Option(help=f"Cubes to validate on: {SOURCE_FORMAT}; a published split is kept.")
]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Adam updates of each training.")]
ConfigOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Field of the network, e.g. units=1 or fusion=add; may be repeated."),
]
BFloat16Option = Annotated[bool, typer.Option("--bf16", help="Convolutions in bfloat16, for hardware that has it.")]
MemoryOption = Annotated[
    float,
    typer.Option(min=0, metavar="GB", help="Training cubes that each process keeps in memory; others are read again."),
]


@app.command()
def train(
    data: TrainingCubesOption,
    val: ValidationCubesOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; an interrupted run in it is resumed.")],
    camera: CameraOption = None,
    illuminant: IlluminantOption = None,
    track: TrackOption = "clean",
    exposure: ExposureOption = (1.0, 1.0),
    brightness: BrightnessOption = (1.0, 1.0),
    cameras: MeasuredOption = None,
    camera_share: ShareOption = 0.5,
    camera_shift: CameraShiftOption = 0,
    held_out_brand: HeldOutBrandOption = None,
    surfaces: SurfacesOption = None,
    surface_share: SurfaceShareOption = 0.25,
    vary_spectra: VariationOption = 0,
    preset: Annotated[
        Literal["paper", "short"],
        typer.Option(help="paper: the paper's recipe, for a GPU. short: small batches, for --minutes."),
    ] = "paper",
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Time budget instead of --steps: as many steps as fit into it.")
    ] = None,
    steps: StepsOption = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Patches an update, over all processes.")] = None,
    patch: Annotated[int | None, typer.Option(min=1, help="Side of a patch, px.")] = None,
    lr: Annotated[float | None, typer.Option(min=0, help="Learning rate after warm-up; a cosine follows.")] = None,
    final_lr: Annotated[float | None, typer.Option(min=0, help="Learning rate at the end of the cosine.")] = None,
    warmup: Annotated[int | None, typer.Option(min=0, help="Steps in which the learning rate rises linearly.")] = None,
    bf16: BFloat16Option = False,
    rmse_weight: Annotated[
        float | None,
        typer.Option(
            min=0, help="Weight of each patch's root mean square error in the loss, for PSNR; 0 in the paper."
        ),
    ] = None,
    average: Annotated[
        float | None,
        typer.Option(min=0, help="Decay of a moving average of the weights, e.g. 0.998, which is validated and kept."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights and the patches.")] = 0,
    evaluate_every: Annotated[int | None, typer.Option(min=1, help="Steps between validations.")] = None,
    save_every: Annotated[int | None, typer.Option(min=1, help="Steps between saves of the run.")] = None,
    config: ConfigOption = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Weights (.safetensors) to start from, whose network is trained; random weights if not given.",
        ),
    ] = None,
    memory: MemoryOption = 8,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Train CCNet on hyperspectral cubes and the frames that cameras make of them.

    The folder gets best.safetensors, the weights of the best validation, last.safetensors, from which the same
    command resumes after an interruption, and curves for TensorBoard. Several GPUs: torchrun --nproc-per-node N
    .venv/bin/ccnet train, with the same options.
    """
    from ccnet.data.variation import SpectralVariation
    from ccnet.model.checkpoint import load_checkpoint

    from .budget import steps_within
    from .processes import process_group
    from .progress import train_with_progress
    from .run_file import planned_steps
    from .trainer import Trainer

    changes: dict[str, Any] = {
        "steps": steps, "batch": batch, "patch": patch, "lr": lr, "final_lr": final_lr, "warmup": warmup, "bf16": bf16,
        "seed": seed, "evaluate_every": evaluate_every, "save_every": save_every, "rmse_weight": rmse_weight,
        "average": average,
    }  # fmt: skip
    recipe = _train_recipe(preset, minutes, changes)
    weights = load_checkpoint(start) if start else None
    network = _network_config(config or [], weights.config if weights else None)
    frames = FrameOptions(camera=camera, illuminant=illuminant, track=track, exposure=exposure)
    with process_group(select_device(device, threads)) as chosen:
        if recipe.bf16:
            warn_if_bfloat16_is_emulated(chosen)
        train_scenes, val_scenes = frames.open_scenes(data, "train", memory), frames.open_scenes(val, "val")
        measured = _measured_cameras(train_scenes, cameras or [], camera_share, camera_shift, held_out_brand or [])
        materials = _materials(surfaces, surface_share)
        variation = SpectralVariation(share=vary_spectra) if vary_spectra else None
        train_scenes = replace(
            train_scenes, brightness=brightness, measured=measured, materials=materials, variation=variation
        )
        if minutes is not None:
            planned = planned_steps(out)
            if planned:
                typer.echo(
                    f"{out}: resumed with its {planned} steps; --minutes does not change a started run", err=True
                )
            steps = planned or steps_within(minutes, network, recipe, train_scenes, val_scenes, chosen)
            recipe = replace(recipe, steps=steps)
        trainer = Trainer(out, network, recipe, train_scenes, val_scenes, chosen, weights)
        # Of several processes, each would stop at a step of its own and wait for the others: torchrun ends them
        with nullcontext() if trainer.has_partners else call_on_stop_signals(partial(_stop, trainer)):
            train_with_progress(trainer)
        if trainer.stopped and trainer.step < recipe.steps:
            typer.echo(f"{trainer.last_file}: interrupted at step {trainer.step}, the same command resumes", err=True)
            raise typer.Exit(130)
        if trainer.is_first_process:
            best = f"MRAE {trainer.best.mrae:.4f}, PSNR {trainer.best.psnr:.2f} dB on {len(val_scenes)} scenes"
            typer.echo(f"{trainer.best_file}: {best}")
            typer.echo(f"{trainer.last_file}: step {trainer.step} of {recipe.steps}, trained on {chosen}")


def _measured_cameras(
    scenes: SceneDataset, files: list[Path], share: float, shift_nm: float, held_out_brands: list[str]
) -> MeasuredCameras | None:
    """Return the cameras of --cameras in daylight and tungsten light, behind matrices to the scenes' only camera."""
    from ccnet.data.camera import read_cameras
    from ccnet.data.colour.matrix import smooth_reflectances
    from ccnet.data.colour.measured import behind_matrices, in_training_lights, split_by_brand, with_shifts
    from ccnet.data.measured import MeasuredCameras

    if not files:
        if held_out_brands or shift_nm:
            raise CCNetError(
                "--held-out-brand and --camera-shift are for --cameras, and there are none: give --cameras"
            )
        return None
    if len(scenes.cameras) != 1:
        raise CCNetError(
            f"--cameras needs a single --camera, which the matrices lead to, and got {len(scenes.cameras)}"
        )
    kept, _ = split_by_brand(read_cameras(files), held_out_brands)
    behind = behind_matrices(in_training_lights(with_shifts(kept, shift_nm)), scenes.cameras[0], smooth_reflectances())
    return MeasuredCameras(cameras=tuple(behind), share=share)


def _materials(surfaces: Path | None, share: float) -> Materials | None:
    """Return the reflectances of --surfaces; None without the option."""
    from ccnet.data.colour.matrix import read_surfaces
    from ccnet.data.materials import Materials

    if surfaces is None:
        return None
    return Materials(surfaces=read_surfaces(surfaces).astype("float32"), share=share)


def _stop(trainer: Trainer) -> None:
    """End a training after the step in work; at a second signal at once, with the last save."""
    if trainer.stopped:
        os._exit(130)
    trainer.stop()


@app.command()
def ablate(
    data: TrainingCubesOption,
    val: ValidationCubesOption,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the trainings and tables; finished trainings in it are kept.")
    ],
    camera: CameraOption = None,
    illuminant: IlluminantOption = None,
    track: TrackOption = "clean",
    exposure: ExposureOption = (1.0, 1.0),
    table: Annotated[
        list[str] | None, typer.Option(help="II, III, IV or V; may be repeated; all four if not given.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each network, with the seeds 0, 1, …")] = 1,
    steps: StepsOption = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.1, help="Time for all trainings instead of --steps, by the speed of the first network."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Patches an update.")] = SHORT.batch,
    patch: Annotated[int, typer.Option(min=1, help="Side of a patch, px.")] = SHORT.patch,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate after warm-up; a cosine follows.")] = PAPER.lr,
    warmup: Annotated[int, typer.Option(min=0, help="Steps in which the learning rate rises.")] = SHORT.warmup,
    evaluate_every: Annotated[
        int | None,
        typer.Option(min=1, help="Steps between validations, for curves.png; only after the last if not given."),
    ] = None,
    bf16: BFloat16Option = False,
    config: ConfigOption = None,
    memory: MemoryOption = 8,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Train the networks of the paper's ablation study and print its Tables II to V.

    All networks see the same batches for the same number of steps, and are validated on whole scenes after the last
    step, which the tables show. The folder gets tables.md and tables.json, and with --evaluate-every curves.png, the
    scores over steps. The same command resumes after an interruption.
    """
    from rich.console import Console

    from .ablation_curves import draw_curves
    from .ablation_study import AblationStudy, plan_trainings
    from .ablation_tables import json_tables, markdown_tables, terminal_table
    from .budget import steps_within
    from .progress import run_study_with_progress
    from .run_file import planned_steps

    _check_length(steps, minutes)
    tables, base = _table_names(table), _network_config(config or [])
    chosen = select_device(device, threads)
    frames = FrameOptions(camera=camera, illuminant=illuminant, track=track, exposure=exposure)
    train_scenes, val_scenes = frames.open_scenes(data, "train", memory), frames.open_scenes(val, "val")
    trainings = plan_trainings(tables, base, range(seeds))
    final_lr = min(PAPER.final_lr, lr)
    recipe = Recipe(steps=steps or 1, batch=batch, patch=patch, lr=lr, final_lr=final_lr, warmup=warmup, bf16=bf16)
    if bf16:
        warn_if_bfloat16_is_emulated(chosen)
    if minutes is not None:
        unvalidated = replace(recipe, evaluate_every=evaluate_every or 10**9)
        steps = planned_steps(out / trainings[0].name) or steps_within(
            minutes / len(trainings), base, unvalidated, train_scenes, val_scenes, chosen
        )
        recipe = replace(recipe, steps=steps)
    study = AblationStudy(out, trainings, recipe, train_scenes, val_scenes, chosen, evaluate_every)
    run_study_with_progress(study)
    rows = study.rows(tables, base)
    Console().print(*(terminal_table(name, table_rows) for name, table_rows in rows.items()), sep="\n")
    document = frames.describe(train_scenes) | {
        "data": data, "val": val, "recipe": study.recipe.to_dict(), "config": base.to_dict(),
        "seeds": list(range(seeds)), "device": chosen, "versions": library_versions(), "tables": json_tables(rows),
    }  # fmt: skip
    write_atomic(out / "tables.json", strict_json(document, 2).encode())
    write_atomic(out / "tables.md", markdown_tables(rows).encode())
    if evaluate_every is not None:
        draw_curves(out / "curves.png", rows)
    typer.echo(f"{out / 'tables.md'}: {len(trainings)} trainings of {study.recipe.steps} steps, on {chosen}")


def _train_recipe(preset: str, minutes: float | None, changes: dict[str, Any]) -> Recipe:
    """Return a preset with the options that were given (not None); a run needs steps or minutes."""
    if minutes is not None and changes["steps"] is not None:
        raise CCNetError("--minutes and --steps are both given: one of them ends the run, leave the other out")
    if preset == "short" and minutes is None and changes["steps"] is None:
        raise CCNetError("--preset short has no length of its own: give --minutes, or --steps")
    recipe = replace(PRESETS[preset], **{name: value for name, value in changes.items() if value is not None})
    return replace(recipe, final_lr=min(recipe.final_lr, recipe.lr))


def _check_length(steps: int | None, minutes: float | None) -> None:
    """Raise CCNetError unless exactly one of the options that end a training is given."""
    if (steps is None) == (minutes is None):
        raise CCNetError("expected --steps or --minutes, and not both: one of them ends each training")


def _table_names(names: list[str] | None) -> list[str]:
    """Return the names of the paper's ablation tables to fill; all tables if no name is given."""
    from ccnet.model.ablations import TABLES

    if unknown := sorted(set(names or []) - set(TABLES)):
        raise CCNetError(f"--table {unknown[0]}: the paper's ablation tables are {', '.join(TABLES)}")
    return names or list(TABLES)


def _network_config(assignments: list[str], base: CCNetConfig | None = None) -> CCNetConfig:
    """Return a configuration, the paper's if not given, with the fields that NAME=VALUE assigns."""
    from ccnet.model.config import CCNetConfig

    known = {field.name: field.default for field in fields(CCNetConfig)}
    values: dict[str, object] = base.to_dict() if base else {}
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        if name not in known:
            raise CCNetError(f"--config {assignment}: no field {name!r}, expected NAME=VALUE of {', '.join(known)}")
        is_number = isinstance(known[name], int) and value.isdecimal()
        values[name] = int(value) if is_number else {"true": True, "false": False}.get(value, value)
    return CCNetConfig.from_dict(values)
