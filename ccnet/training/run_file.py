"""``last.safetensors``: the weights, optimizer state and progress of a run, from which it resumes."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from ccnet.contract import CCNetError, write_atomic

RUN_FILE = "last.safetensors"

_MODEL, _AVERAGE, _ADAM = "model.", "average.", "adam."  # prefixes of the tensors' names


def save_run(
    path: Path, model: Module, optimizer: Optimizer, metadata: dict[str, str], average: Module | None = None
) -> None:
    """Write the weights, their moving average if there is one, and the optimizer's state, atomically."""
    tensors = {f"{_MODEL}{name}": value.cpu().contiguous() for name, value in model.state_dict().items()}
    if average is not None:
        tensors |= {f"{_AVERAGE}{name}": value.cpu().contiguous() for name, value in average.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{_ADAM}{index}.{key}": value.cpu().contiguous() for key, value in state.items()}
    write_atomic(path, save(tensors, metadata))


def load_run(
    path: Path, model: Module, optimizer: Optimizer, identity: str, average: Module | None = None
) -> dict[str, str]:
    """Restore the weights, their moving average and the optimizer's state.

    Args:
        path: File that ``save_run`` wrote.
        model: Network to load the weights into.
        optimizer: Optimizer to load the state into.
        identity: Expected value of the metadata's ``run``: recipe, network and data as JSON.
        average: Network to load the moving average into; None if the run has none.

    Returns:
        The file's metadata.

    Raises:
        CCNetError: The file is damaged, or belongs to a run with another identity.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise CCNetError(_describe_damage(path, error)) from error
    if metadata.get("run") != identity:
        raise CCNetError(
            f"{path}: belongs to another recipe or other data; repeat its options or choose another --out folder"
        )
    model.load_state_dict(_without_prefix(tensors, _MODEL))
    if average is not None:
        average.load_state_dict(_without_prefix(tensors, _AVERAGE))
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _without_prefix(tensors, _ADAM).items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return metadata


def planned_steps(folder: Path) -> int | None:
    """Read the number of steps that the run in a folder was started with.

    Args:
        folder: Folder of a run.

    Returns:
        The steps of its recipe, or None if the folder holds no saved run.

    Raises:
        CCNetError: The saved run is damaged.
    """
    path = folder / RUN_FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return int(json.loads(file.metadata()["run"])["recipe"]["steps"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CCNetError(_describe_damage(path, error)) from error


def _describe_damage(path: Path, error: Exception) -> str:
    return f"{path}: cannot be resumed ({error}); delete it to start again"


def _without_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with the prefix, under the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
