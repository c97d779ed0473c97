"""Weights on disk: safetensors with the configuration in the file's metadata; never pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ccnet.contract import SHIPPED_WEIGHTS, CCNetError, camera_response, write_atomic

from .ccnet import CCNet
from .config import CCNetConfig


def save_checkpoint(
    path: Path, model: CCNet, notes: Mapping[str, str] | None = None, camera: Mapping[str, Any] | None = None
) -> None:
    """Write a model's weights and configuration.

    Args:
        path: the file to write, ``.safetensors``.
        model: the network.
        notes: strings about the training run, kept in the file's metadata.
        camera: the camera of all training frames, ``Camera.to_entry()``; None for weights of several cameras, or of
            published frames.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    metadata = {**(notes or {}), "config": json.dumps(model.config.to_dict())}
    if camera is not None:
        metadata["camera"] = json.dumps(dict(camera))
    write_atomic(path, save(tensors, metadata))


def load_checkpoint(path: Path = SHIPPED_WEIGHTS) -> CCNet:
    """Load the model of a checkpoint, on the CPU, in eval mode.

    Args:
        path: a file that ``save_checkpoint`` wrote; the shipped weights by default.

    Returns:
        The network with its weights.

    Raises:
        CCNetError: the file is no checkpoint, or is damaged.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    try:
        config = CCNetConfig.from_dict(json.loads(metadata["config"]))
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise CCNetError(f"{path}: holds no CCNet configuration; expected weights made by 'ccnet train'") from error
    except CCNetError as error:
        raise CCNetError(f"{path}: {error}") from error
    model = CCNet(config)
    _check(path, model.state_dict(), tensors)
    model.load_state_dict(tensors)
    return model.eval()


def checkpoint_camera(path: Path = SHIPPED_WEIGHTS) -> dict[str, Any] | None:
    """Read the camera that a checkpoint was trained for.

    Args:
        path: a file that ``save_checkpoint`` wrote; the shipped weights by default.

    Returns:
        Its entry, name and response (see ``camera_response``); None where the weights do not belong to a single camera.

    Raises:
        CCNetError: the file is no checkpoint, or its camera cannot be read.
    """
    with _opened(path) as file:
        entry = (file.metadata() or {}).get("camera")
    if entry is None:
        return None
    try:
        camera = json.loads(entry)
        camera_response(camera)  # refuses what is no camera
        return camera
    except (ValueError, RecursionError) as error:  # CCNetError is a ValueError, too
        raise CCNetError(
            f"{path}: its camera cannot be read ({error}); expected weights made by 'ccnet train'"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise CCNetError(f"{path}: no such file, expected weights (.safetensors) made by 'ccnet train'")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CCNetError(f"{path}: not a safetensors file ({error})".splitlines()[0]) from error


def _check(path: Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name in sorted(expected.keys() ^ found.keys()):
        which = "lacks" if name in expected else "has an unknown"
        raise CCNetError(f"{path}: {which} tensor {name!r}; the weights do not belong to their configuration")
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape:
            shapes = f"{tuple(found[name].shape)}, expected {tuple(tensor.shape)}"
            raise CCNetError(f"{path}: tensor {name!r} has shape {shapes}")
        if not torch.isfinite(found[name]).all():
            raise CCNetError(f"{path}: tensor {name!r} holds NaN or infinite weights")


def weights_hash(model: CCNet) -> str:
    """Return the SHA-256 of all names, shapes and float32 values; every artifact of the weights carries it."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()
