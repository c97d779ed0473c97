"""Progress bars and lines of validations for trainings, on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .ablation_study import AblationStudy
from .trainer import Trainer


def train_with_progress(trainer: Trainer) -> None:
    """Train to the end, with a bar that shows the last loss, and print a line for each validation."""
    columns = (
        BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TextColumn("left"), TimeRemainingColumn()
    )  # fmt: skip
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not trainer.is_first_process) as progress:
        task = progress.add_task("starts", completed=trainer.step, total=trainer.recipe.steps)
        score = ""
        for event in trainer.run():
            if event.score:
                score = f"MRAE {event.score.mrae:.4f}, PSNR {event.score.psnr:.2f} dB"
                progress.console.print(f"step {event.step}: loss {event.loss:.4f}, lr {event.lr:.1e}, val {score}")
            progress.update(task, completed=event.step, description=f"loss {event.loss:.4f}  {score}")


def run_study_with_progress(study: AblationStudy) -> None:
    """Run all trainings, with a bar over all their steps, and print a line for each validation."""
    steps = study.recipe.steps
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starts", total=steps * len(study.trainings))
        for training, event in study.run():
            completed = study.trainings.index(training) * steps + (event.step if event else steps)
            progress.update(task, completed=completed, description=training.name)
            score = event.score if event else study.scores[training]
            if score and (event is None or event.step < steps):
                after = f" after {event.step} steps" if event else ""
                progress.console.print(f"{training.name}{after}: MRAE {score.mrae:.4f}, PSNR {score.psnr:.2f} dB")
