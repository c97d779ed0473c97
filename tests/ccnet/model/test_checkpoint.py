"""Weights on disk: what was saved comes back, everything else is one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ccnet.contract import BENCHMARK_WEIGHTS, SHIPPED_WEIGHTS, CCNetError, camera_response
from ccnet.data.camera import Camera
from ccnet.model import CCNet
from ccnet.model.checkpoint import checkpoint_camera, load_checkpoint, save_checkpoint, weights_hash
from ccnet.model.config import CCNetConfig

Change = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]

WEIGHTS_0_1_0 = "cea56b1697b3bde45ce7cf66340147b95ac9689f671b5daa16e33f54e389b1b9"
"""``weights_hash`` of the shipped weights, as version 0.1.0 computed it."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.safetensors"


def test_saved_model_loads_unchanged(path: Path, network: CCNet) -> None:
    save_checkpoint(path, network, {"step": "7"})
    loaded = load_checkpoint(path)
    assert loaded.config == network.config
    assert not loaded.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["step"] == "7"
    assert list(path.parent.iterdir()) == [path]


def test_configuration_is_stored_with_the_weights(path: Path) -> None:
    config = CCNetConfig(units=2, width=40, groups=5, patch=8, expansion=2)
    save_checkpoint(path, CCNet(config))
    assert load_checkpoint(path).config == config


def test_hash_depends_on_the_weights_alone(path: Path, network: CCNet) -> None:
    before = weights_hash(network)
    assert len(before) == 64
    save_checkpoint(path, network, {"note": "changes nothing"})
    assert weights_hash(load_checkpoint(path)) == before
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] += 1e-3
    assert weights_hash(network) != before


def test_camera_is_stored_with_the_weights(path: Path, network: CCNet, camera: Camera) -> None:
    save_checkpoint(path, network)
    assert checkpoint_camera(path) is None
    save_checkpoint(path, network, {"camera": "a note of this name does not win"}, camera.to_entry())
    found = checkpoint_camera(path)
    assert found is not None and found["name"] == camera.name
    np.testing.assert_array_equal(camera_response(found), camera.response)
    assert weights_hash(load_checkpoint(path)) == weights_hash(network)


@pytest.mark.parametrize("entry", ["", "{", "[" * 100_000, "null", "7", '{"name": "x", "response": [[1, 1, 1]]}'])
def test_damaged_camera_entry_gives_one_line(path: Path, network: CCNet, entry: str) -> None:
    save_checkpoint(path, network, {"camera": entry})
    with pytest.raises(CCNetError, match="its camera cannot be read") as caught:
        checkpoint_camera(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_camera_of_a_missing_file_gives_one_line(path: Path) -> None:
    with pytest.raises(CCNetError, match="no such file, expected weights"):
        checkpoint_camera(path)
    path.write_bytes(b"hello " * 9)
    with pytest.raises(CCNetError, match="not a safetensors file"):
        checkpoint_camera(path)


def test_checkpoint_of_version_0_1_0_loads_unchanged() -> None:
    """The hash covers every tensor's name, shape and value, so it holds module names fixed as well."""
    assert weights_hash(load_checkpoint(BENCHMARK_WEIGHTS)) == WEIGHTS_0_1_0


def test_shipped_weights_name_their_camera() -> None:
    camera = checkpoint_camera()
    assert camera is not None
    np.testing.assert_allclose(camera_response(camera).sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("path", "config"),
    [
        (SHIPPED_WEIGHTS, CCNetConfig(base="mlp", base_width=48, normalise=True)),
        (SHIPPED_WEIGHTS.with_name("ccnet-cave-base.safetensors"), CCNetConfig(base="mlp")),
        (BENCHMARK_WEIGHTS, CCNetConfig()),
    ],
    ids=["any", "cave-base", "cave"],
)
def test_all_weights_belong_to_the_same_camera(path: Path, config: CCNetConfig) -> None:
    assert load_checkpoint(path).config == config
    camera, default = checkpoint_camera(path), checkpoint_camera()
    assert camera is not None and default is not None
    np.testing.assert_array_equal(camera_response(camera), camera_response(default))


def refusal(path: Path, words: str) -> None:
    with pytest.raises(CCNetError, match=words) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder_are_refused(path: Path) -> None:
    refusal(path, "no such file, expected weights")
    refusal(path.parent, "no such file, expected weights")


def test_truncated_file_is_refused(path: Path, network: CCNet) -> None:
    save_checkpoint(path, network)
    whole = path.read_bytes()
    for size in (0, 7, 8, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        refusal(path, "not a safetensors file")


def test_pickle_is_never_opened(path: Path, network: CCNet) -> None:
    torch.save(network.state_dict(), path)
    refusal(path, "not a safetensors file")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (None, "holds no CCNet configuration"),
        ({"format": "pt"}, "holds no CCNet configuration"),
        ({"config": "{"}, "holds no CCNet configuration"),
        ({"config": "[1]"}, "config has unknown fields"),
        ({"config": "[]"}, "holds no CCNet configuration"),
        ({"config": "7"}, "holds no CCNet configuration"),
        ({"config": '{"units": "one"}'}, "config units is 'one', expected a positive integer"),
        ({"config": '{"depth": 1}'}, r"config has unknown fields \['depth'\]"),
        ({"config": '{"units": 1}'}, "lacks tensor 'conv_in.weight'"),
    ],
)
def test_safetensors_file_of_another_program_is_refused(
    path: Path, metadata: dict[str, str] | None, words: str
) -> None:
    save_file({"weight": torch.zeros(3)}, path, metadata)
    refusal(path, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t | {"conv_in.weight": t["conv_in.weight"] * torch.nan}, "'conv_in.weight' holds NaN or infinite"),
        (lambda t: t | {"conv_out.weight": t["conv_out.weight"] / 0}, "'conv_out.weight' holds NaN or infinite"),
        (
            lambda t: t | {"conv_in.weight": torch.zeros(32, 3, 1, 1)},
            r"shape \(32, 3, 1, 1\), expected \(32, 3, 3, 3\)",
        ),
        (lambda t: t | {"extra": torch.zeros(1)}, "has an unknown tensor 'extra'"),
        (lambda t: {k: v for k, v in t.items() if k != "conv_in.weight"}, "lacks tensor 'conv_in.weight'"),
    ],
)
def test_weights_that_do_not_fit_their_configuration_are_refused(
    path: Path, network: CCNet, change: Change, words: str
) -> None:
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    save_file(dict(change(tensors)), path, {"config": json.dumps(network.config.to_dict())})
    refusal(path, words)
