"""The configuration: the paper's by default, and nothing that the network cannot be."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from ccnet.contract import CCNetError
from ccnet.model.config import CCNetConfig


def test_defaults_are_those_of_the_paper() -> None:
    config = CCNetConfig()
    assert (config.width, config.units, config.groups, config.patch, config.expansion) == (32, 3, 4, 16, 4)
    assert (config.inter_spectral, config.continuity, config.fusion) == ("ccnet", "nescm", "paf")
    assert config.base == "none"
    with pytest.raises(FrozenInstanceError):
        config.units = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"units": 1, "width": 40, "groups": 5},
        {"inter_spectral": "mha"},
        *({"continuity": kind} for kind in ("none", "convlstm", "convgru")),
        *({"fusion": kind} for kind in ("add", "concat", "cross")),
        {"base": "mlp"},
        {"base": "mlp", "base_width": 48, "normalise": True},
        *({"patch": side} for side in (4, 8, 16, 32, 64)),
    ],
    ids=str,
)
def test_configurations_of_the_tables_survive_json(values: dict[str, Any]) -> None:
    config = CCNetConfig(**values)
    assert CCNetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        *(({name: 0}, f"{name} is 0, expected a positive integer") for name in ("width", "units", "groups", "patch")),
        ({"expansion": 2.0}, "expansion is 2.0"),
        ({"units": True}, "units is True"),
        ({"units": "3"}, "units is '3'"),
        ({"width": 28}, "width is 28, expected at least the cube's 31 bands"),
        ({"groups": 5}, "width 32 does not split into 5 groups"),
        ({"patch": 6}, "patch is 6, expected a multiple of 4"),
        ({"inter_spectral": "cnn"}, "inter_spectral is 'cnn', expected one of"),
        ({"continuity": "lstm"}, "continuity is 'lstm', expected one of"),
        ({"fusion": ["paf"]}, "fusion is"),
        ({"base_width": 48}, "base_width is 48 without a base; set base to 'mlp', too"),
        ({"base_width": 0}, "base_width is 0, expected a positive integer"),
        ({"normalise": "yes"}, "normalise is 'yes', expected true or false"),
        ({"base": "linear"}, "base is 'linear', expected one of"),
        ({"inter_spectral": "mha", "continuity": "none"}, "'mha' stands alone"),
        ({"inter_spectral": "mha", "fusion": "add"}, "'mha' stands alone"),
        ({"continuity": "none", "fusion": "cross"}, "'none' has nothing to fuse by 'cross'"),
        ({"depth": 3, "unit": 1}, r"unknown fields \['depth', 'unit'\]"),
    ],
    ids=str,
)
def test_impossible_configurations_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(CCNetError, match=words):
        CCNetConfig.from_dict(values)


def test_configuration_without_a_base_has_the_fields_of_version_0_1_0() -> None:
    """So that its checkpoints load there, and runs that were started there resume here."""
    assert list(CCNetConfig().to_dict()) == [
        "width", "units", "groups", "patch", "expansion", "inter_spectral", "continuity", "fusion"
    ]  # fmt: skip
    based = CCNetConfig(base="mlp", base_width=48, normalise=True).to_dict()
    assert (based["base"], based["base_width"], based["normalise"]) == ("mlp", 48, True)


@pytest.mark.parametrize(("patch", "multiple"), [(4, 16), (12, 48), (16, 16), (32, 32), (64, 64)])
def test_size_multiple_covers_scales_and_patches(patch: int, multiple: int) -> None:
    assert CCNetConfig(patch=patch).size_multiple == multiple
