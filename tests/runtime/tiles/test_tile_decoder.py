"""One pass by ``full``, tiles within the limits of engines and memory, and cubes that are not finite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from ccnet.model import CCNet
from ccnet.runtime import Projection
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from tests.runtime.conftest import (
    Spy,
    fake,
    manifest,
    model,
    open_camera,
    pixels,
    refusal,
    whole,
    write,
)


@pytest.mark.parametrize("size", [(90, 100), (300, 70), (250, 260)])
def test_tiles_shrink_when_memory_runs_out(
    folder: Path, size: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    frame = pixels(*size)
    decoder = Spy(OnnxRuntimeBackend(folder / "decode.onnx"))
    decoder.most = 70 * 70
    with fake(OnnxRuntimeBackend(folder / "encode.onnx"), decoder, tile=240) as reconstruct:
        cube = reconstruct(frame)
        assert reconstruct.tile == 64
        assert "64 px (by the engine or memory; 240 px was asked for)" in reconstruct.describe()["tile"]
        assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]  # 128 px, 64 px
        strips = np.concatenate([strip.copy() for _, strip in reconstruct.strips(frame)], axis=1)
        assert len(caplog.records) == 2  # never said again
    np.testing.assert_allclose(cube, whole(folder, frame), atol=1e-5)
    np.testing.assert_array_equal(cube, strips)


def test_strips_continue_when_memory_runs_out_between_them(folder: Path) -> None:
    frame = pixels(300, 90)
    decoder = Spy(OnnxRuntimeBackend(folder / "decode.onnx"))
    with fake(OnnxRuntimeBackend(folder / "encode.onnx"), decoder, tile=112) as reconstruct:
        found = []
        for _, strip in reconstruct.strips(frame):
            found.append(strip.copy())
            decoder.most = 60 * 60
    np.testing.assert_allclose(np.concatenate(found, axis=1), whole(folder, frame), atol=1e-5)


def test_smallest_tile_beyond_memory_is_an_error(folder: Path) -> None:
    decoder = Spy(OnnxRuntimeBackend(folder / "decode.onnx"))
    decoder.most = 10
    with fake(OnnxRuntimeBackend(folder / "encode.onnx"), decoder, tile=240) as reconstruct:
        refusal(lambda: reconstruct(pixels(200, 200)), "bad_alloc")
        assert reconstruct.tile == 48


@pytest.mark.parametrize("tile", [48, 80, 512])
@pytest.mark.parametrize("size", [(20, 30), (90, 90), (300, 70)])
def test_engines_get_tiles_within_their_limits(folder: Path, size: tuple[int, int], tile: int) -> None:
    encoder, decoder = (Spy(OnnxRuntimeBackend(folder / f"{kind}.onnx")) for kind in ("encode", "decode"))
    bounds = {"encode": [32, 128], "decode": [64, 96]}
    with fake(encoder, decoder, bounds, tile=tile) as reconstruct:
        cube = reconstruct(pixels(*size))
        assert reconstruct.tile == min(max(tile, 64), 96)
        assert (f"{tile} px was asked for" in reconstruct.describe()["tile"]) == (tile != reconstruct.tile)
    assert cube.shape == (31, *size)
    assert all(32 <= side <= 128 for shape in encoder.shapes for side in shape[2:])
    assert all(64 <= side <= 96 for shape in decoder.shapes for side in shape[2:])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_cube_that_is_not_finite_is_never_written(tmp_path: Path, value: float) -> None:
    broken = model("decode", manifest())
    weight = next(weight for weight in broken.graph.initializer if weight.name == "w7")
    values = numpy_helper.to_array(weight).copy()
    values[30, 0, 2, 2] = value
    weight.CopyFrom(numpy_helper.from_array(values, "w7"))
    folder = write(tmp_path / "broken", manifest(), {"decode": broken.SerializeToString()})
    (tmp_path / "out").mkdir()
    with open_camera(folder) as reconstruct:
        words = ("cube holds NaN or infinite values at rows 0 to 16", "weights are broken")
        refusal(lambda: reconstruct(pixels(16, 16)), *words)
        refusal(lambda: reconstruct.save(pixels(16, 16), tmp_path / "out/cube.npy"), *words)
    assert not list((tmp_path / "out").iterdir())


Spies = tuple[Spy, Spy, Spy]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """encode, decode and both as one graph."""
    return {kind: model(kind, manifest()).SerializeToString() for kind in ("encode", "decode", "full")}


@pytest.fixture
def spies(graphs: dict[str, bytes]) -> Iterator[Spies]:
    encoder, decoder, full = (Spy(OnnxRuntimeBackend(graphs[kind])) for kind in ("encode", "decode", "full"))
    yield encoder, decoder, full


def runs(spies: Spies) -> tuple[int, ...]:
    return tuple(len(spy.shapes) for spy in spies)


def test_a_frame_of_one_tile_takes_one_pass(folder: Path, spies: Spies) -> None:
    frame = pixels(90, 100)
    projection = Projection.differences({"a": (700, 500)})
    with fake(spies[0], spies[1], tile=112, full=spies[2]) as reconstruct:
        cube = reconstruct(frame)
        ((_, strip),) = reconstruct.strips(frame)
        np.testing.assert_array_equal(strip, cube)
        reconstruct.project(frame, projection)
        assert runs(spies) == (0, 0, 3)
        assert reconstruct.encode(frame).shape == (1, 3)
        assert reconstruct.describe()["passes"].startswith("1 (full)")
    np.testing.assert_allclose(cube, whole(folder, frame), atol=1e-5)


def test_a_given_context_never_uses_full(spies: Spies) -> None:
    frame = pixels(40, 40)
    with fake(spies[0], spies[1], full=spies[2]) as reconstruct:
        reconstruct(frame, np.ones((1, 3), np.float32))
    assert runs(spies) == (0, 1, 0)


@pytest.mark.parametrize(("size", "passes"), [((112, 112), 1), ((113, 112), 2), ((16, 113), 2)])
def test_frames_just_above_the_tile_take_two_passes(spies: Spies, size: tuple[int, int], passes: int) -> None:
    with fake(spies[0], spies[1], tile=112, full=spies[2]) as reconstruct:
        reconstruct(pixels(*size))
    assert runs(spies)[0] == passes - 1
    assert runs(spies)[2] == 2 - passes


def test_a_frame_that_encode_reduces_takes_two_passes(spies: Spies) -> None:
    with fake(spies[0], spies[1], full=spies[2], encode_pixels=40 * 40 - 1) as reconstruct:
        reconstruct(pixels(40, 40))
    assert runs(spies) == (1, 1, 0)


def test_two_passes_where_full_runs_out_of_memory(folder: Path, spies: Spies) -> None:
    frame = pixels(90, 100)
    spies[2].most = 10
    with fake(spies[0], spies[1], tile=112, full=spies[2]) as reconstruct:
        cube = reconstruct(frame)
        assert reconstruct.tile == 64
    assert runs(spies)[0] == 1 and runs(spies)[2] == 0
    np.testing.assert_allclose(cube, whole(folder, frame), atol=1e-5)


def test_a_folder_without_full_takes_two_passes(folder: Path) -> None:
    with open_camera(folder) as reconstruct:
        assert reconstruct.selection.full is None
        assert reconstruct.describe()["passes"] == "2"


@settings(max_examples=8)
@given(st.integers(1, 70), st.integers(1, 70))
def test_one_pass_equals_two(artifacts: tuple[CCNet, Path], height: int, width: int) -> None:
    frame = pixels(height, width)
    with open_camera(artifacts[1]) as reconstruct:
        assert reconstruct.selection.full is not None
        one, two = reconstruct(frame), reconstruct(frame, reconstruct.encode(frame))
    np.testing.assert_allclose(one, two, atol=2e-5)
