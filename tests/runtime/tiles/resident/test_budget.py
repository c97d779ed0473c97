"""Frames within a budget: what the plan says is what the GPU gives, and the tiles stay within it."""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.contract import MANIFEST_NAME, CCNetError, Manifest
from ccnet.runtime.tiles.resident import budget
from tests.runtime.conftest import manifest, pixels, refusal
from tests.runtime.gpu.engine_double import FULL_SCRATCH, SCRATCH

from .conftest import gpu, on_host, resident, write_engines

ENCODE_SCRATCH = 60


@pytest.fixture(scope="module", params=["float32", "uint8"])
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose manifest states the memory of its engines, as ``ccnet build`` writes it."""
    folder = write_engines(tmp_path_factory.mktemp(request.param), manifest(input=request.param))
    frame = 12 if request.param == "float32" else 3
    cube = 4 * 31
    stated = {
        "encode": ENCODE_SCRATCH + frame,
        "decode": SCRATCH + frame + cube,
        "full": FULL_SCRATCH + frame + cube,
    }
    found = Manifest.read(folder)
    artifacts = tuple(replace(a, details={**a.details, "bytes_per_pixel": stated[a.kind]}) for a in found.artifacts)
    (folder / MANIFEST_NAME).write_text(replace(found, artifacts=artifacts).to_json())
    return folder


@pytest.mark.parametrize("seed", range(12))
def test_frames_of_all_sizes_stay_within_a_budget(measured: Path, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """The GPU has no byte more than the plan says, and memory that ran out would be a warning."""
    draw = random.Random(seed)
    memory, options = draw.randint(700_000, 4_000_000), {"encode_pixels": draw.choice([2000, 9000, 40_000])}
    with (
        gpu(seed, integrated=False, encode_scratch=ENCODE_SCRATCH) as driver,
        resident(measured, memory=memory, **options) as ours,
        on_host(measured, tile=96, **options) as theirs,
        caplog.at_level(logging.WARNING, "ccnet.runtime.reconstructor"),
    ):
        for _ in range(4):
            frame = pixels(draw.randint(1, 200), draw.randint(1, 200))
            try:
                plan = ours.plan(frame)
            except CCNetError as error:
                refusal(functools.partial(ours, frame), error, f"memory is {memory / 1e6:.0f} MB, a frame of")
                continue
            driver.capacity = plan.memory
            np.testing.assert_allclose(ours(frame), theirs(frame), atol=1e-5)
            assert driver.used() <= plan.memory <= memory
            ours(frame, theirs.encode(frame))  # ``decode`` alone, in the memory that ``full`` may have taken
            assert driver.used() <= plan.memory
            ours(frame)
            assert 0.97 * plan.memory < driver.used() or ours.takes_one_pass(frame)
    assert not caplog.records


def test_large_frame_is_on_the_gpu_section_by_section(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pixels(600, 100)
    with gpu(0, integrated=False, encode_scratch=ENCODE_SCRATCH), resident(measured) as whole:
        at_once = whole.plan(frame).memory
    monkeypatch.setattr(budget, "FRAME_BYTES", 1)
    budget._plan.cache_clear()
    with (
        gpu(0, integrated=False, encode_scratch=ENCODE_SCRATCH) as driver,
        resident(measured, memory=at_once - 1000, encode_pixels=2000) as ours,
    ):
        driver.capacity = ours.plan(frame).memory
        ours(frame)
        assert driver.used() <= driver.capacity
    budget._plan.cache_clear()


def test_encode_that_exceeds_the_budget_is_refused_with_what_is_needed(measured: Path) -> None:
    with gpu(0, integrated=False, encode_scratch=ENCODE_SCRATCH), resident(measured, memory=700_000) as ours:
        refusal(lambda: ours(pixels(90, 90)), "memory is 1 MB, a frame of 90×90 px needs at least", "--memory")
        assert ours.plan(pixels(40, 40)).memory <= 700_000


def test_equal_frames_allocate_nothing_within_a_budget(measured: Path) -> None:
    frame = pixels(150, 160)
    with gpu(0, False, encode_scratch=ENCODE_SCRATCH) as driver, resident(measured, memory=3_000_000) as ours:
        ours(frame)
        before = driver.calls["cuMemAlloc_v2"]
        ours(frame)
        assert driver.calls["cuMemAlloc_v2"] == before


def test_the_command_plan_counts_the_same_memory(measured: Path, ccnet: Callable[..., Any]) -> None:
    with gpu(0, False, encode_scratch=ENCODE_SCRATCH), resident(measured, memory=3_000_000) as ours:
        expected = ours.plan(pixels(150, 160)).memory
        options = ("--artifacts", measured, "--backend", "tensorrt", "--memory", "3", "--input-space", "camera")
        result = ccnet("plan", "160x150", *options)
    assert f"memory    about {expected / 1e6:.0f} MB, budget 3 MB" in result.out


def test_a_budget_without_place_for_full_takes_two_passes(measured: Path) -> None:
    frame = pixels(90, 90)
    with gpu(0, False, encode_scratch=ENCODE_SCRATCH) as driver, resident(measured) as ours:
        needed = ours.plan(frame).memory
    with (
        gpu(0, False, encode_scratch=ENCODE_SCRATCH) as driver,
        resident(measured, memory=needed - 1) as ours,
        on_host(measured) as theirs,
    ):
        assert not ours.takes_one_pass(frame)
        driver.capacity = ours.plan(frame).memory
        assert driver.capacity < needed
        np.testing.assert_allclose(ours(frame), theirs(frame), atol=1e-5)
