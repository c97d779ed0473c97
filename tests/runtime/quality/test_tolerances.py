"""The distance between cubes and the tolerance table."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ccnet.runtime.quality.tolerances import TOLERANCES, Parity, Tolerance, compare, worst

Cube = npt.NDArray[np.float32]
PERFECT = Parity(mrae=0, sam=0, psnr=float("inf"), max_abs=0, mean_abs=0)


@pytest.fixture
def cube() -> Cube:
    return np.random.default_rng(0).uniform(0.1, 1, (31, 6, 9)).astype(np.float32)


def test_equal_cubes_have_no_error_and_pass_every_tolerance(cube: Cube) -> None:
    assert compare(cube, cube.copy()) == PERFECT
    assert all(tolerance.passes(PERFECT) for tolerance in TOLERANCES.values())


def test_figures_of_a_constant_offset() -> None:
    reference = np.full((31, 2, 3), 0.48)
    parity = compare(reference, reference + 0.1)
    assert parity.max_abs == pytest.approx(0.1)
    assert parity.mean_abs == pytest.approx(0.1)
    assert parity.mrae == pytest.approx(0.1 / 0.5)
    assert parity.psnr == pytest.approx(20)
    assert parity.sam == pytest.approx(0, abs=1e-6)


def test_figures_are_computed_in_float64(cube: Cube) -> None:
    half = cube.astype(np.float16)
    assert compare(cube, half).max_abs == np.abs(cube.astype(float) - half.astype(float)).max()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["reference", "cube", "both"])
def test_non_finite_values_pass_no_tolerance(cube: Cube, bad: float, which: str) -> None:
    broken = cube.copy()
    broken[7, 2, 3] = bad
    pair = {"reference": (broken, cube), "cube": (cube, broken), "both": (broken, broken)}[which]
    parity = compare(*pair)
    assert not any(tolerance.passes(parity) for tolerance in TOLERANCES.values())
    assert worst(*pair) == (7, 2, 3)


def test_shapes_must_agree(cube: Cube) -> None:
    for function in (compare, worst):
        with pytest.raises(ValueError, match=r"\(31, 6, 9\) and \(31, 6, 1\), expected the same"):
            function(cube, cube[..., :1])


def test_worst_is_where_the_difference_is_largest(cube: Cube) -> None:
    moved = cube.copy()
    moved[30, 5, 0] -= 0.5
    moved[3, 1, 8] += 0.2
    assert worst(cube, moved) == (30, 5, 0)


@pytest.mark.parametrize(
    ("limits", "figures", "said"),
    [
        ({"max_abs": 1e-5}, {"max_abs": 1e-5}, []),
        ({"max_abs": 1e-5}, {"max_abs": 0.25}, ["max_abs 0.25 > 1e-05"]),
        ({"max_abs": 1e-5}, {"max_abs": float("nan")}, ["max_abs nan > 1e-05"]),
        ({"psnr": 65}, {"psnr": 65.0}, []),
        ({"psnr": 65}, {"psnr": 64.0}, ["psnr 64.0 dB < 65 dB"]),
        ({"mrae": 0.002, "mean_abs": 1.0}, {"mrae": 0.01, "mean_abs": 0.5, "max_abs": 9.0}, ["mrae 0.01 > 0.002"]),
        ({}, {"max_abs": float("inf")}, []),
    ],
)
def test_tolerance_names_the_exceeded_limits(
    limits: dict[str, Any], figures: dict[str, float], said: list[str]
) -> None:
    parity = Parity(**{**vars(PERFECT), **figures})
    tolerance = Tolerance(reason="a test", **limits)
    assert tolerance.broken_by(parity) == said
    assert tolerance.passes(parity) == (not said)


def test_tolerance_table_is_read_only_and_gives_reasons() -> None:
    with pytest.raises(TypeError):
        TOLERANCES["fp32"] = Tolerance(reason="looser", max_abs=1.0)  # type: ignore[index]
    assert set(TOLERANCES) == {"fp32", "tiled", "fp16", "int8", "scan"}
    assert all(tolerance.reason for tolerance in TOLERANCES.values())


def test_parity_reads_as_one_line(cube: Cube) -> None:
    assert str(compare(cube, cube + np.float32(0.1))).startswith("MRAE ")
    assert "\n" not in str(PERFECT)
