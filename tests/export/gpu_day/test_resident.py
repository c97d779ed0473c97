"""The step of the resident pipeline over the driver double, with torch on the CPU in its memory: no GPU is measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ccnet.export.gpu_day import computations, resident
from ccnet.export.gpu_day.computations import Variant, choose, onnxruntime_variant, torch_variant
from ccnet.export.gpu_day.engines import Computation, Place
from ccnet.export.gpu_day.rig import Rig, Row, SkippedError
from ccnet.export.gpu_day.tf32 import network
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from ccnet.runtime.gpu.cuda import Device, Stream, has_gpu
from tests.runtime.conftest import manifest, model, write
from tests.runtime.gpu.driver_double import Driver, installed


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: the frames are tiny."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class DoubleLauncher:
    """Runs computations when a stream of the driver double reaches them."""

    torch_device = "cpu"

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def launch(self, stream: Stream, places: Mapping[str, Place], computation: Computation) -> None:
        def work() -> None:
            views = {name: self.driver.view(*place, np.float32) for name, place in places.items()}
            with torch.inference_mode():
                computation({name: torch.from_numpy(view) for name, view in views.items()})

        self.driver.enqueue(stream.handle, work, [place.address for place in places.values()], "torch")


def rehearse(seed: int = 0, variants: list[Variant] | None = None, integrated: bool = False) -> dict[str, Row]:
    """Return the rows of the step by their names, without the size of the frame."""
    driver, rows = Driver(seed), list[Row]()
    driver.attributes |= {18: int(integrated)}
    with installed(driver):
        resident.run(Rig("cpu", rows.append), DoubleLauncher(driver), variants)
    return {row.name.removeprefix("32×192, "): row for row in rows}


def variant() -> Variant:
    return torch_variant(network(Rig("cpu", print)), "fp32")


@pytest.mark.parametrize(("seed", "integrated"), [(0, False), (1, False), (2, True)])
def test_cubes_of_the_pipeline_are_those_of_torch_on_the_whole_frame(seed: int, integrated: bool) -> None:
    rows = rehearse(seed, [variant()], integrated)
    assert not [row for row in rows.values() if row.value is None]
    distance = rows["torch FP32, distance from torch's whole frame"]
    assert distance.value is not None and distance.target is not None
    assert distance.value <= distance.target
    assert distance.note.startswith("within the table; ")
    assert rows["torch FP32, a cube that is not finite is refused"].value == 1
    assert rows.keys() >= {
        "torch FP32, page-locked cube",
        "torch FP32, page-locked cube, own context",
        "torch FP32, hidden part of the copy",
        "no network, cube on the GPU",
        "no network, page-locked cube",
        "no network, the host's part of a frame",
    }
    whole = rows["torch FP32, one pass, distance from torch's whole frame"]
    assert whole.value is not None and whole.target is not None and whole.value <= whole.target
    assert "replayed CUDA graphs" in rows["torch FP32, one pass, page-locked cube"].note
    assert rows["no network, one pass, page-locked cube"].value
    hidden = rows["torch FP32, hidden part of the copy"]
    assert hidden.target == 0.5
    assert hidden.note.endswith("a frame of 2 tiles")
    assert "replayed CUDA graphs" in rows["torch FP32, page-locked cube"].note


def test_wrong_cube_and_a_sum_that_hides_nan_show() -> None:
    right = variant()

    def wrong(tensors: Mapping[str, Tensor]) -> None:
        right.decode(None)(tensors)  # type: ignore[arg-type]
        tensors["cube"].add_(1e-3)
        tensors["cube_sum"].zero_()

    rows = rehearse(0, [Variant(name="x", precision="fp32", encode=right.encode, decode=lambda _: wrong)])
    distance = rows["x, distance from torch's whole frame"]
    assert distance.value == pytest.approx(1e-3, rel=0.1)
    assert "max_abs" in distance.note
    assert rows["x, a cube that is not finite is refused"].value == 0


def test_wrong_cube_of_one_pass_shows() -> None:
    right = variant()
    assert right.full is not None
    compute = right.full(None)  # type: ignore[arg-type]

    def wrong(tensors: Mapping[str, Tensor]) -> None:
        compute(tensors)
        tensors["cube"].add_(1e-3)

    rows = rehearse(0, [replace(right, full=lambda _: wrong)])
    assert rows["torch FP32, one pass, distance from torch's whole frame"].value == pytest.approx(1e-3, rel=0.1)
    assert rows["torch FP32, distance from torch's whole frame"].note.startswith("within the table; ")


def test_variant_that_fails_leaves_the_others() -> None:
    def fail(tensors: Mapping[str, Tensor]) -> None:
        raise RuntimeError("no kernel image")

    class AtOnce(DoubleLauncher):
        def launch(self, stream: Stream, places: Mapping[str, Place], computation: Computation) -> None:
            if computation is fail:
                fail({})
            super().launch(stream, places, computation)

    rows: list[Row] = []
    with installed(Driver(0)) as driver:
        bad = Variant(name="bad", precision="fp32", encode=lambda _: fail, decode=lambda _: fail)
        resident.run(Rig("cpu", rows.append), AtOnce(driver), [bad])
    assert [row.name for row in rows] == [
        "32×192, bad",
        "32×192, no network, cube on the GPU",
        "32×192, no network, page-locked cube",
        "32×192, no network, the host's part of a frame",
        "32×192, no network, one pass, page-locked cube",
    ]
    assert rows[0].note == "failed: CCNetError: bad (cuda:0) failed to run: no kernel image"


def names(found: list[Variant]) -> list[str]:
    return [each.name for each in found]


def test_onnxruntime_comes_first_and_torch_remains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(Rig("cpu", print))
    write(tmp_path, manifest(context_size=net.context_size))
    monkeypatch.setattr(computations, "cuda_refusal", lambda device: "")
    with installed(Driver(0)):
        found, why = choose(net, tmp_path, Device())
    assert (names(found), why) == (["ONNX Runtime FP32", "torch FP16", "torch FP32"], "")


@pytest.mark.parametrize(
    ("graphs", "refusal", "expected"),
    [
        (None, "", "manifest.json"),
        ({"input": "uint8", "context_size": 2560}, "", "('uint8', 2560), expected ('float32', 2560)"),
        ({"context_size": 3}, "", "('float32', 3), expected ('float32', 2560)"),
        ({"context_size": 2560}, "no cuDNN", "no cuDNN"),
    ],
    ids=["no folder", "uint8", "another network", "no provider"],
)
def test_torch_stands_in_with_the_reason(
    graphs: dict[str, Any] | None, refusal: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if graphs:
        write(tmp_path, manifest(**graphs))
    monkeypatch.setattr(computations, "cuda_refusal", lambda device: refusal)
    with installed(Driver(0)):
        found, why = choose(network(Rig("cpu", print)), tmp_path, Device())
    assert names(found) == ["torch FP32", "torch FP16"]
    assert expected in why


def test_row_says_which_library_computed_the_tiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(computations, "torch_variant", lambda net, precision: torch_variant(net, "fp32"))
    monkeypatch.setattr(resident, "GRAPHS", tmp_path)
    row = rehearse()["libraries that compute the tiles"]
    assert row.value == 1
    assert row.note.startswith(f"torch alone: {tmp_path}")


@pytest.mark.parametrize("kind", ["encode", "decode", "full"])
def test_onnxruntime_computes_at_the_addresses_of_tensors(kind: str) -> None:
    graphs = {each: model(each, manifest()).SerializeToString() for each in ("encode", "decode", "full")}
    with installed(Driver(0)):
        stream = Stream(Device())
        found = onnxruntime_variant(graphs["encode"], graphs["decode"], "cpu", full=graphs["full"])
        compute = getattr(found, kind)(stream)
        stream.close()
    rgb, context = torch.rand(1, 3, 48, 64), torch.rand(1, 3)
    tensors = {"rgb": rgb, "context": context.clone()}
    if kind != "encode":
        tensors |= {"cube": torch.full((1, 31, 48, 64), torch.nan), "cube_sum": torch.tensor(torch.nan)}
    compute(tensors)
    feeds = {"rgb": rgb.numpy(), **({"context": context.numpy()} if kind == "decode" else {})}
    with OnnxRuntimeBackend(graphs[kind]) as backend:
        (expected,) = backend.run(feeds).values()
    actual = tensors["context" if kind == "encode" else "cube"]
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-6)
    if kind != "encode":
        assert tensors["cube_sum"].item() == pytest.approx(float(expected.sum()), rel=1e-4)
    assert not found.can_be_captured


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_step_is_skipped_without_a_driver() -> None:
    with pytest.raises(SkippedError, match="no CUDA driver"):
        resident.run(Rig("cpu", print))


def test_rehearsal_without_the_double_is_skipped() -> None:
    with installed(Driver(0)), pytest.raises(SkippedError, match="needs the double of the driver"):
        resident.run(Rig("cpu", print))
