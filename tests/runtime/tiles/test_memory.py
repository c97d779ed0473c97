"""The default budget, the table of bytes a pixel, and budgets that are too small."""

from __future__ import annotations

import math
import subprocess
import sys
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ccnet.contract import ArtifactFolder, CCNetError
from ccnet.model import CCNet
from ccnet.runtime import Projection
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from ccnet.runtime.backends.select import select
from ccnet.runtime.tiles import memory
from ccnet.runtime.tiles.memory import BYTES_PER_PIXEL, full_bytes, tile_bytes, tile_rules
from ccnet.runtime.tiles.planner import STRIP_BYTES, TileRules, plan_frame
from tests.runtime.conftest import Spy, artifact, fake, open_camera, pixels, refusal, whole

Array = npt.NDArray[Any]


@pytest.mark.parametrize(
    ("free", "budget"), [(1_000_000_000, 500_000_000), (64_000_000_000, 2_000_000_000), (None, 2_000_000_000)]
)
def test_default_is_half_of_what_is_free_and_at_most_2_gb(
    folder: Path, monkeypatch: pytest.MonkeyPatch, free: int | None, budget: int
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: free)
    rules = tile_rules(select(ArtifactFolder.open(folder)), None, None)
    assert (rules.memory, rules.tile, rules.is_soft) == (budget, None, True)


def test_engines_and_fixed_sides_have_no_default_budget(folder: Path) -> None:
    selection = select(ArtifactFolder.open(folder))
    engine = replace(selection, backend="tensorrt", decode=artifact("decode", "tensorrt", "fp16", [64, 512]))
    rules = tile_rules(engine, None, None)
    assert (rules.memory, rules.least, rules.most, rules.strip_bytes) == (None, 64, 512, 0)
    assert tile_rules(selection, 64, None).memory is None


def test_file_may_state_its_own_memory() -> None:
    entry = artifact("decode")
    assert tile_bytes(entry) == BYTES_PER_PIXEL["onnx"]
    assert tile_bytes(replace(entry, details={"bytes_per_pixel": 123})) == 123
    assert tile_bytes(replace(entry, details={"bytes_per_pixel": "much"})) == BYTES_PER_PIXEL["onnx"]


def test_full_takes_what_it_states_or_more_than_decode(folder: Path) -> None:
    selection = select(ArtifactFolder.open(folder))
    decode = replace(artifact("decode"), details={"bytes_per_pixel": 100})
    full = artifact("full")
    assert full_bytes(replace(selection, decode=decode, full=None)) == 0
    assert full_bytes(replace(selection, decode=decode, full=full)) == 115
    assert full_bytes(replace(selection, decode=decode, full=replace(full, details={"bytes_per_pixel": 130}))) == 130


@pytest.mark.parametrize("size", [(90, 100), (300, 70), (250, 260)])
def test_cube_is_the_same_within_any_budget(folder: Path, size: tuple[int, int]) -> None:
    frame, expected = pixels(*size), whole(folder, pixels(*size))
    for budget in (memory.BASE_BYTES + 12_000_000, memory.BASE_BYTES + 40_000_000, None):
        decoder = Spy(OnnxRuntimeBackend(folder / "decode.onnx"))
        with fake(OnnxRuntimeBackend(folder / "encode.onnx"), decoder, memory=budget) as reconstruct:
            cube = reconstruct(frame)
            plan = reconstruct.plan(frame)
            assert {shape[2:] for shape in decoder.shapes} == {plan.tile}
            strips = np.concatenate([strip.copy() for _, strip in reconstruct.strips(frame)], axis=1)
        np.testing.assert_allclose(cube, expected, atol=1e-5)
        np.testing.assert_array_equal(cube, strips)
        assert budget is None or plan.memory <= budget


def test_strips_count_towards_the_budget_and_parts_do_not() -> None:
    """The rules of the CPU count a strip; a plan for parts leaves it out."""
    by = TileRules(halo=64, multiple=16, least=16, most=1 << 30, memory=10**9, tile_bytes=600, strip_bytes=STRIP_BYTES)
    strips, parts = (plan_frame(3000, 4000, 0, replace(by, strip_bytes=size)) for size in (STRIP_BYTES, 0))
    tallest = max(y.last - y.first for y in strips.rows)
    assert strips.memory >= 600 * math.prod(strips.tile) + STRIP_BYTES * tallest * 4000
    assert parts.memory == 600 * math.prod(parts.tile) and parts.pixels < strips.pixels


class Watch(Spy):
    """A Spy that counts the results of earlier runs that are alive when the next run starts."""

    def __init__(self, real: OnnxRuntimeBackend) -> None:
        super().__init__(real)
        self.results: list[weakref.ref[Array]] = []
        self.alive = 0

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.alive = max(self.alive, sum(result() is not None for result in self.results))
        outputs = super().run(feeds)
        self.results += [weakref.ref(output) for output in outputs.values()]
        return outputs


def test_no_tile_is_in_memory_while_the_next_is_computed(folder: Path, tmp_path: Path) -> None:
    frame, decoder = pixels(250, 260), Watch(OnnxRuntimeBackend(folder / "decode.onnx"))
    with fake(OnnxRuntimeBackend(folder / "encode.onnx"), decoder, tile=112) as reconstruct:
        cube = reconstruct(frame)
        reconstruct.save(frame, tmp_path / "cube.npy")
        reconstruct.project(frame, Projection.bands(500))
        for _ in reconstruct.strips(frame):
            pass
        found = np.full_like(cube, np.nan)
        for top, left, part in reconstruct.parts(frame):
            target = found[:, top : top + part.shape[1], left : left + part.shape[2]]
            assert np.isnan(target).all()  # each pixel once
            target[...] = part
            del part
    assert len(decoder.results) == 5 * 9 and decoder.alive == 0
    np.testing.assert_array_equal(found, cube)
    np.testing.assert_array_equal(np.load(tmp_path / "cube.npy"), cube)


def test_parts_cover_each_pixel_once_when_memory_runs_out_in_between(folder: Path, tmp_path: Path) -> None:
    frame, decoder = pixels(250, 260), Spy(OnnxRuntimeBackend(folder / "decode.onnx"))
    with fake(OnnxRuntimeBackend(folder / "encode.onnx"), decoder, tile=112) as reconstruct:
        found = np.zeros((31, 250, 260), np.float32)
        for number, (top, left, part) in enumerate(reconstruct.parts(frame)):
            target = found[:, top : top + part.shape[1], left : left + part.shape[2]]
            assert not target.any()
            target[...] = part
            if number == 3:  # the first of the second row of three
                decoder.most = 80 * 80
        assert reconstruct.tile == 64
        np.testing.assert_allclose(found, whole(folder, frame), atol=1e-5)


def test_tiles_shrink_below_the_budget_when_memory_runs_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = pixels(250, 260)
    decoder = Spy(OnnxRuntimeBackend(folder / "decode.onnx"))
    decoder.most = 100 * 100
    with fake(OnnxRuntimeBackend(folder / "encode.onnx"), decoder) as reconstruct:
        cube = reconstruct(frame)
        height, width = reconstruct.plan(frame).tile
        assert 48 * 48 <= height * width <= 100 * 100
        assert caplog.records and "from now on tiles are at most" in caplog.text
    np.testing.assert_allclose(cube, whole(folder, frame), atol=1e-5)


def test_smallest_tile_beyond_memory_is_an_error(folder: Path) -> None:
    decoder = Spy(OnnxRuntimeBackend(folder / "decode.onnx"))
    decoder.most = 10
    with fake(OnnxRuntimeBackend(folder / "encode.onnx"), decoder) as reconstruct:
        refusal(lambda: reconstruct(pixels(200, 200)), "bad_alloc")


def test_budget_that_is_too_small_is_refused_with_what_is_needed(folder: Path) -> None:
    with open_camera(folder, memory=memory.BASE_BYTES + 1_000_000) as reconstruct:
        refusal(
            lambda: reconstruct(pixels(200, 200)), "memory is 181 MB, a frame of 200×200 px needs at least", "--memory"
        )
    refusal(lambda: open_camera(folder, memory=0), "memory is 0 bytes, expected a positive number")
    refusal(lambda: open_camera(folder, memory=10**9, tile=64), "tile and memory both decide")


def test_default_budget_never_refuses_a_frame_nor_cuts_it_finer_than_512_px(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    with open_camera(folder) as reconstruct:
        assert reconstruct(pixels(100, 200)).shape == (31, 100, 200)
        assert reconstruct.plan(pixels(100, 200)).tile == (112, 208)
        large = reconstruct.plan(pixels(1000, 1000))
    with open_camera(folder, tile=512) as reconstruct:
        assert large.tile <= (512, 512)
        assert large.pixels <= reconstruct.plan(pixels(1000, 1000)).pixels


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory is read from Linux")
@pytest.mark.parametrize(("side", "runs"), [(256, 1), (544, 2)])  # feature maps below 32 MB come from malloc's own heap
def test_decode_takes_no_more_memory_than_it_states(artifacts: tuple[CCNet, Path], side: int, runs: int) -> None:
    script = f"""
import sys
from pathlib import Path
import numpy as np
from ccnet.model import CCNet
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
decode = OnnxRuntimeBackend(Path(sys.argv[1]))
context = np.zeros((1, int(sys.argv[2])), np.float32)
def run(side):
    decode.run({{"rgb": np.zeros((1, 3, side, side), np.float32), "context": context}})
def kilobytes(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])
run(16)  # threads and libraries have their memory
loaded = kilobytes("VmRSS")
for _ in range({runs}):  # also with a free block in the arena that held the cube before
    run({side})
print(1024 * (kilobytes("VmHWM") - loaded))
"""
    selection = select(ArtifactFolder.open(artifacts[1]))
    arguments = [str(artifacts[1] / selection.decode.file), str(selection.folder.manifest.context_size)]
    result = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    taken = int(result.stdout) / side**2
    assert 0.3 * tile_bytes(selection.decode) < taken <= tile_bytes(selection.decode)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory is read from Linux")
def test_reconstruct_stays_within_its_budget(artifacts: tuple[CCNet, Path], tmp_path: Path) -> None:
    """The whole command, from file to file, on a frame of several tiles."""
    megabytes, (height, width) = 300, (560, 800)
    np.save(tmp_path / "frame.npy", pixels(height, width))
    script = """
import sys
from ccnet.runtime.cli import main
try:
    main.main()
except SystemExit as end:
    assert not end.code, end.code
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""
    options = ["--artifacts", str(artifacts[1]), "--input-space", "camera", "--memory", str(megabytes)]
    command = ["reconstruct", str(tmp_path / "frame.npy"), "-o", str(tmp_path / "cube.npy"), *options]
    result = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, check=True)
    with open_camera(artifacts[1], memory=megabytes * 1_000_000) as reconstruct:
        found = reconstruct.plan(pixels(height, width))
    assert found.tiles > 1
    assert 1024 * int(result.stdout.split()[-1]) <= found.memory <= megabytes * 1_000_000
    assert np.load(tmp_path / "cube.npy", mmap_mode="r").shape == (31, height, width)


def test_describe_names_the_budget(folder: Path) -> None:
    with open_camera(folder, memory=1_500_000_000) as reconstruct:
        described = reconstruct.describe()
    assert described["memory"] == "at most 1500 MB"
    assert described["tile"] == "as large as memory and engine allow, 3500 bytes a pixel"
    with pytest.raises(CCNetError, match="positive"):
        open_camera(folder, memory=-1)
