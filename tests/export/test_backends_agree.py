"""PyTorch with and without kernels, ONNX Runtime, and tiled reconstruction give the same cube."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ccnet.contract import CONTEXT, CUBE, FRAME_SCALE, HALO, RGB, SIZE_MULTIPLE
from ccnet.model import CCNet
from ccnet.ops import kernels
from ccnet.runtime import Reconstructor, read_frame
from ccnet.runtime.backends.select import Precision
from ccnet.runtime.quality.tolerances import TOLERANCES, compare
from ccnet.runtime.tiles.tiling import plan

Artifacts = tuple[CCNet, Path]
Array = npt.NDArray[np.float32]
Frame = npt.NDArray[Any]

SIZES = [(1, 1), (17, 31), (150, 211)]
ODD = [(1, 1), (17, 31), (3, 449), (433, 5), (57, 301), (299, 33), (101, 251), (241, 95), (257, 143), (251, 253)]
WINDOW = 240  # px, of which 80 are kept
NO_SEAM = 1e-4

each_size = pytest.mark.parametrize("size", SIZES, ids=[f"{height}x{width}" for height, width in SIZES])


def a_frame(height: int, width: int, dtype: str = "uint8") -> Frame:
    """Return a frame of smooth colours with sharp edges and some noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width][..., None] / 40
    pixels = (
        0.5
        + 0.3 * np.sin(x + y * [0.5, 1, 2])
        + 0.15 * (np.sin(3 * x * y) > 0)
        + rng.normal(0, 0.02, (height, width, 3))
    )
    return np.asarray(pixels.clip(0, 1) * FRAME_SCALE[dtype], dtype)


def in_torch(model: CCNet, frame: Frame) -> tuple[Array, Array]:
    """Return the cube (31, H, W) and the context (1, N) of PyTorch."""
    rgb = torch.from_numpy(np.float32(frame.transpose(2, 0, 1)[None] / np.float32(FRAME_SCALE[frame.dtype.name])))
    with torch.inference_mode():
        cube, context = model.run(rgb, None)
    return cube[0].numpy(), context.numpy()


@pytest.mark.skipif(kernels.kernel() is None, reason="installed without a C compiler: there are no kernels")
@each_size
def test_kernels_do_not_change_the_cube(network: CCNet, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    frame = a_frame(*size)
    fast, _ = in_torch(network, frame)
    monkeypatch.setattr(kernels, "kernel", lambda: None)
    assert TOLERANCES["fp32"].broken_by(compare(in_torch(network, frame)[0], fast)) == []


@each_size
@pytest.mark.parametrize("dtype", FRAME_SCALE)
def test_exported_folder_gives_pytorchs_cube(artifacts: Artifacts, size: tuple[int, int], dtype: str) -> None:
    """The folder computes the context with its own ``encode``."""
    model, folder = artifacts
    frame = a_frame(*size, dtype=dtype)
    with opened(folder) as whole:
        assert TOLERANCES["fp32"].broken_by(compare(in_torch(model, frame)[0], whole(frame))) == []


def test_polygraphy_agrees(artifacts: Artifacts) -> None:
    """Check the exported files with Polygraphy's runner and comparison, as docs/engine.md describes."""
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
    from polygraphy.comparator import Comparator, CompareFunc

    model, folder = artifacts
    frame = a_frame(32, 48, dtype="float32")
    cube, context = in_torch(model, frame)
    rgb = np.ascontiguousarray(frame.transpose(2, 0, 1)[None])
    runners = [OnnxrtRunner(SessionFromOnnx(str(folder / f"decode.{name}.onnx")), name) for name in ("fp32", "fp16")]
    found = Comparator.run(runners, data_loader=[{RGB: rgb, CONTEXT: context}])
    outputs = {name: iterations[0][CUBE][0] for name, iterations in found.items()}
    assert TOLERANCES["fp32"].broken_by(compare(cube, outputs["fp32"])) == []
    limit = TOLERANCES["fp16"].mean_abs
    judge = CompareFunc.simple(check_error_stat="mean", atol=limit, rtol=0)
    assert bool(Comparator.compare_accuracy(found, compare_func=judge))
    strict = CompareFunc.simple(check_error_stat="max", atol=1e-7, rtol=0)
    assert not bool(Comparator.compare_accuracy(found, compare_func=strict)), "FP16 cannot be that near"


def opened(folder: Path, **options: Any) -> Reconstructor:
    """Return a reconstructor for linear frames on the CPU."""
    return Reconstructor.open(folder, input_space="camera", backend="onnxruntime", **options)


def both_ways(folder: Path, frame: Frame) -> tuple[Array, Array]:
    """Return the cube of the whole frame and the cube computed tile by tile."""
    with opened(folder) as whole:
        context = whole.encode(frame)
        cube = whole(frame, context)
    with opened(folder, tile=WINDOW) as tiled:
        return cube, tiled(frame, context)


def seam(cube: Array, tiled: Array) -> float:
    """Return the mean step across the seams of tiles, relative to the whole cube there: 1 without a seam."""
    steps = []
    for one in (cube, tiled):
        edges = [
            [span.first for span in plan(size, WINDOW, HALO, multiple=SIZE_MULTIPLE)[1:]] for size in cube.shape[1:]
        ]
        across = [
            np.abs(one.take(at, axis) - one.take(np.array(at, int) - 1, axis)) for axis, at in enumerate(edges, 1)
        ]
        steps.append(np.concatenate([step.ravel() for step in across]).mean())
    return float(steps[1] / steps[0])


@pytest.mark.parametrize("size", ODD, ids=[f"{height}x{width}" for height, width in ODD])
def test_tiled_cube_equals_the_whole_cube(artifacts: Artifacts, size: tuple[int, int]) -> None:
    cube, tiled = both_ways(artifacts[1], a_frame(*size))
    assert TOLERANCES["tiled"].broken_by(compare(cube, tiled)) == []
    if max(size) > WINDOW:
        assert seam(cube, tiled) == pytest.approx(1, abs=NO_SEAM)


@pytest.mark.parametrize("size", [(113, 301), (271, 97)])
def test_papers_network_tiles_without_seams(shipped: Artifacts, size: tuple[int, int]) -> None:
    cube, tiled = both_ways(shipped[1], a_frame(*size))
    assert TOLERANCES["tiled"].broken_by(compare(cube, tiled)) == []
    assert seam(cube, tiled) == pytest.approx(1, abs=NO_SEAM)


def test_seam_of_0_2_percent_is_detected() -> None:
    """The seam statistic detects a tile that is 0.2 % brighter than its neighbours."""
    cube = np.float32(a_frame(40, 301, "float32")).transpose(2, 0, 1)
    first, second = [span.first for span in plan(301, WINDOW, HALO, multiple=SIZE_MULTIPLE)[1:]][-1], 301
    tiled = cube.copy()
    tiled[..., first:second] *= 1.002
    assert abs(seam(cube, tiled) - 1) > 2 * NO_SEAM


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "tiles"), [((482, 512), (512, 256)), ((1392, 1300), (512, 400))], ids=["482x512", "1392x1300"]
)
def test_large_frames_do_not_depend_on_the_tile(
    artifacts: Artifacts, size: tuple[int, int], tiles: tuple[int, int]
) -> None:
    """Compare 482×512 px with the whole frame, and two tilings of 1392×1300 px, where the whole frame is too slow."""
    frame = a_frame(*size)
    with opened(artifacts[1], tile=tiles[0]) as reconstructor:
        context = reconstructor.encode(frame)
        expected = reconstructor(frame, context)
    with opened(artifacts[1], tile=tiles[1]) as reconstructor:
        assert TOLERANCES["tiled"].broken_by(compare(expected, reconstructor(frame, context))) == []


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_shipped_weights_agree_on_real_frames(shipped: Artifacts, shared: Path, precision: Precision) -> None:
    model, folder = shipped
    broken = {}
    with opened(folder, precision=precision) as reconstructor:
        for path in sorted((shared / "frames").iterdir()):
            pixels = read_frame(path)
            top, left = (max(0, size - 128) // 2 for size in pixels.shape[:2])
            frame = np.ascontiguousarray(pixels[top : top + 128, left : left + 128])
            cube, context = in_torch(model, frame)
            broken[path.name] = TOLERANCES[precision].broken_by(compare(cube, reconstructor(frame, context)))
    assert broken
    assert not any(broken.values()), broken
