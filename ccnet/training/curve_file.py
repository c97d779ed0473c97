"""``curve.json``: the validations of a run over its steps, which an interruption neither loses nor repeats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from ccnet.contract import CCNetError, strict_json, write_atomic
from ccnet.evaluation.validation import ValidationScore

CURVE_FILE = "curve.json"


def save_curve(path: Path, curve: Mapping[int, ValidationScore]) -> None:
    """Write the scores after each validated step, atomically, as a list in the order of the steps."""
    points = [{"step": step, **asdict(score)} for step, score in sorted(curve.items())]
    write_atomic(path, strict_json(points, 2).encode())


def load_curve(path: Path, last_step: int) -> dict[int, ValidationScore]:
    """Read the scores of a run up to the step that it resumes from; those of later steps will be computed again.

    Args:
        path: File that ``save_curve`` wrote, or that does not exist yet.
        last_step: Step that the run resumes from.

    Returns:
        Step → score; empty without a file.

    Raises:
        CCNetError: The file is damaged.
    """
    if not path.exists():
        return {}
    try:
        points = {int(point.pop("step")): ValidationScore(**point) for point in json.loads(path.read_bytes())}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CCNetError(f"{path}: cannot be read ({error}); delete it to continue without its validations") from error
    return {step: score for step, score in points.items() if step <= last_step}
