"""Cubes from frames: tiled equals whole; lifetime, threads and options."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ccnet.contract import ArtifactFolder, Manifest
from ccnet.runtime import Projection, probe, read_cube, reconstructor
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from ccnet.runtime.io.arrays import as_frame
from ccnet.runtime.probe import open_probed
from tests.runtime.conftest import (
    Array,
    Spy,
    fake,
    open_camera,
    pixels,
    refusal,
    whole,
)

TILES = (48, 64, 112)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 31), (48, 48), (113, 97), (241, 256)])
def test_tiled_equals_whole(folder: Path, size: tuple[int, int], tile: int) -> None:
    frame = pixels(*size)
    with open_camera(folder, tile=tile) as reconstruct:
        cube = reconstruct(frame)
    assert cube.dtype == np.float32
    np.testing.assert_allclose(cube, whole(folder, frame), atol=1e-5)


@settings(max_examples=40)
@given(st.integers(1, 180), st.integers(1, 180), st.integers(1, 4), st.integers(1, 6))
def test_tiled_equals_whole_for_any_size_tile_and_halo(
    folder: Path, height: int, width: int, halo: int, kept: int
) -> None:
    encoder, decoder = (OnnxRuntimeBackend(folder / f"{kind}.onnx") for kind in ("encode", "decode"))
    frame = pixels(height, width)
    with fake(encoder, decoder, tile=16 * (2 * halo + kept), halo=16 * halo) as reconstruct:
        np.testing.assert_allclose(reconstruct(frame), whole(folder, frame), atol=1e-5)


def test_small_network_needs_all_of_its_halo(folder: Path) -> None:
    """If a smaller halo were enough, the comparison above would prove little."""
    frame = pixels(97, 97)
    encoder, decoder = (OnnxRuntimeBackend(folder / f"{kind}.onnx") for kind in ("encode", "decode"))
    with fake(encoder, decoder, tile=48, halo=8) as reconstruct:
        assert np.abs(reconstruct(frame) - whole(folder, frame)).max() > 1e-3


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", ">u2"])
def test_frames_are_brought_to_one_scale_by_their_dtype(folder: Path, dtype: str) -> None:
    frame: Array = pixels(20, 36, "uint8").astype(np.float32) / 255
    given: Array = frame if dtype == "float32" else np.rint(frame * np.iinfo(dtype).max).astype(dtype)
    with open_camera(folder) as reconstruct:
        np.testing.assert_allclose(reconstruct(given), whole(folder, frame), atol=1e-5)


def test_dark_frame_is_not_stretched(folder: Path) -> None:
    frame = pixels(20, 36) // 8
    with open_camera(folder) as reconstruct:
        np.testing.assert_allclose(reconstruct(frame), whole(folder, frame), atol=1e-6)


def test_uint8_graphs_take_the_frame_as_it_is(folder: Path, folder_uint8: Path) -> None:
    frame = pixels(113, 97)
    with open_camera(folder_uint8, tile=64) as reconstruct:
        np.testing.assert_allclose(reconstruct(frame), whole(folder, frame), atol=1e-5)


def test_views_and_read_only_frames_are_frames(folder: Path) -> None:
    frame = pixels(60, 80)[::-2, 3::3]
    frame.flags.writeable = False
    with open_camera(folder) as reconstruct:
        np.testing.assert_array_equal(reconstruct(frame), reconstruct(frame.copy()))


def test_strips_are_the_cube_from_top_to_bottom(folder: Path) -> None:
    frame = pixels(113, 97)
    with open_camera(folder, tile=64) as reconstruct:
        cube = reconstruct(frame)
        bottom = 0
        for top, strip in reconstruct.strips(frame):
            assert top == bottom
            bottom += strip.shape[1]
            np.testing.assert_array_equal(strip, cube[:, top:bottom])
    assert bottom == 113


@pytest.mark.parametrize("suffix", [".hdr", ".npy"])
def test_save_writes_the_cube(folder: Path, tmp_path: Path, suffix: str) -> None:
    frame = pixels(113, 97)
    with open_camera(folder, tile=64) as reconstruct:
        reconstruct.save(frame, tmp_path / f"cube{suffix}", {"source": "test"})
        np.testing.assert_array_equal(read_cube(tmp_path / f"cube{suffix}"), reconstruct(frame))


def test_out_is_filled_and_returned(folder: Path) -> None:
    frame = pixels(113, 97)
    with open_camera(folder, tile=64) as reconstruct:
        out = np.full((31, 113, 97), np.nan, np.float32)
        assert reconstruct(frame, out=out) is out
        np.testing.assert_array_equal(out, reconstruct(frame))


@pytest.mark.parametrize(
    "out",
    [
        np.empty((31, 40, 41), np.float32),
        np.empty((31, 40, 40)),
        [0.0],
        np.broadcast_to(np.float32(0), (31, 40, 40)),
    ],
    ids=["shape", "dtype", "list", "read-only"],
)
def test_invalid_out_is_refused(folder: Path, out: Any) -> None:
    with open_camera(folder) as reconstruct:
        refusal(lambda: reconstruct(pixels(40, 40), out=out), "out is", "expected a writeable float32 (31, 40, 40)")


def test_nothing_as_large_as_a_frame_is_allocated_after_warm_up(folder: Path) -> None:
    frame, projection = pixels(640, 600), Projection.differences({"a": (700, 500)})
    cube, index = np.empty((31, 640, 600), np.float32), np.empty((1, 640, 600), np.float32)
    with open_camera(folder, tile=64, encode_pixels=64 * 64) as reconstruct:
        reconstruct(frame, out=cube)
        reconstruct.project(frame, projection, out=index)
        tracemalloc.start()
        try:
            reconstruct(frame, out=cube)
            reconstruct.project(frame, projection, out=index)
            left, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert left < 100_000
    assert peak < frame.nbytes  # 1.2 MB; the cube has 48


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_frames_come_through_dlpack(folder: Path, dtype: str) -> None:
    frame = pixels(50, 60, dtype)
    with open_camera(folder) as reconstruct:
        np.testing.assert_array_equal(reconstruct(torch.from_numpy(frame)), reconstruct(frame))
        shared = as_frame(torch.from_numpy(frame))
        assert np.shares_memory(shared, frame)
        assert torch.from_dlpack(reconstruct(frame)).shape == (31, 50, 60)


@pytest.mark.gpu
def test_frames_come_from_cuda(folder: Path) -> None:
    frame = pixels(50, 60)
    with open_camera(folder) as reconstruct:
        np.testing.assert_array_equal(reconstruct(torch.from_numpy(frame).cuda()), reconstruct(frame))


@pytest.mark.parametrize("frame", [[[1, 2, 3]], None, "photo.png", torch.zeros(4, 4, 3, requires_grad=True)])
def test_frame_that_is_not_an_array_is_refused(folder: Path, frame: Any) -> None:
    with open_camera(folder) as reconstruct:
        for call in (reconstruct, reconstruct.encode, reconstruct.strips):
            refusal(lambda call=call: call(frame), "frame")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "fp16"}, "no decode artifact of format onnx and precision fp16; there are: decode onnx fp32"),
        ({"backend": "cuda"}, "backend is 'cuda', expected one of auto, onnxruntime"),
        ({"tile": 32}, "tile is 32 px, expected a multiple of 16 of at least 48 px"),
        ({"tile": 100}, "tile is 100 px"),
        ({"threads": 0}, "threads is 0"),
        ({"encode_pixels": 0}, "encode_pixels is 0"),
    ],
)
def test_invalid_options_are_refused(folder: Path, options: dict[str, Any], words: str) -> None:
    refusal(lambda: open_camera(folder, **options), words)


def test_reconstructor_closes_twice_and_then_refuses_to_run(folder: Path) -> None:
    with open_camera(folder, tile=48) as reconstruct:
        strips = reconstruct.strips(pixels(100, 16))
        next(strips)
    reconstruct.close()
    refusal(lambda: reconstruct(pixels(16, 16)), "is closed")
    refusal(lambda: next(strips), "is closed")


def test_threads_take_turns(folder: Path) -> None:
    frames = [pixels(50 + 7 * index, 70, seed=index) for index in range(8)]
    encoder, decoder = (Spy(OnnxRuntimeBackend(folder / f"{kind}.onnx", threads=1)) for kind in ("encode", "decode"))
    encoder.turn = decoder.turn
    with fake(encoder, decoder, tile=48) as reconstruct, ThreadPoolExecutor(4) as pool:
        cubes = list(pool.map(reconstruct, frames))
        for frame, cube in zip(frames, cubes, strict=True):
            np.testing.assert_array_equal(cube, reconstruct(frame))


def test_describe_names_backend_precision_and_tile(folder: Path) -> None:
    with open_camera(folder, tile=64) as reconstruct:
        described = reconstruct.describe()
    assert described["backend"] == f"onnxruntime {onnxruntime.__version__} (cpu)"
    assert described["precision"] == "decode fp32, encode fp32"
    assert (described["tile"], described["halo"]) == ("64 px", "16 px")


def test_importing_the_runtime_loads_no_optional_package() -> None:
    script = "import sys, ccnet.runtime; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    heavy = {"torch", "onnx", "onnxruntime", "h5py", "cv2", "PIL", "tensorrt", "matplotlib"}
    assert not heavy & set(output.split())


def test_old_name_of_tile_is_accepted_with_a_warning(folder: Path) -> None:
    with pytest.warns(DeprecationWarning, match="pass tile") as caught, open_camera(folder, window=64) as reconstruct:
        assert reconstruct.tile == reconstruct.window == 64
    assert len(caught) == 1
    refusal(lambda: open_camera(folder, tile=64, window=64), "tile is 64 and window is 64, expected one of them")


def test_open_folder_is_read_and_hashed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []
    hashes: list[object] = []
    read, digest = Manifest.read, hashlib.sha256
    monkeypatch.setattr(Manifest, "read", lambda path: (reads.append(path), read(path))[1])
    monkeypatch.setattr(hashlib, "sha256", lambda *data: (hashes.append(data), digest(*data))[1])
    opened = ArtifactFolder.open(folder)
    for tile in (48, 64):
        with open_camera(opened, tile=tile) as reconstruct:
            assert reconstruct.selection.folder is opened
    open_probed(opened, input_space="camera", backend="onnxruntime").close()
    assert reads == [folder]
    assert len(hashes) == 2, "encode and decode"


def test_path_is_read_and_selected_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()
    read, chosen = Manifest.read, probe.select
    monkeypatch.setattr(Manifest, "read", lambda path: (calls.update(["read"]), read(path))[1])
    monkeypatch.setattr(probe, "select", lambda *options: (calls.update(["select"]), chosen(*options))[1])
    monkeypatch.setattr(reconstructor, "select", lambda *options: pytest.fail("it is selected again"))
    open_probed(folder, input_space="camera").close()
    assert calls == {"read": 1, "select": 1}
