"""Each step of the day on the CPU with tiny sizes: the rehearsal, so that none fails on the day for a typo."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ccnet.export.gpu_day import __main__ as command
from ccnet.export.gpu_day import copies, gpu_tests, inference, scans, tf32, training
from ccnet.export.gpu_day.rig import Rig, Row, SkippedError
from ccnet.export.gpu_day.schedule import STEPS
from ccnet.ops.scan import scan_reference
from ccnet.runtime.gpu.cuda import has_gpu
from tests.ccnet.ops.cuda.emulator import installed_emulator
from tests.runtime.gpu.driver_double import Driver, installed


def rehearse(step: Any, **options: bool) -> list[Row]:
    """Return the rows of a step; none may have failed."""
    rows: list[Row] = []
    step.run(Rig("cpu", rows.append, **options))
    assert rows
    assert not [row.note for row in rows if row.value is None]
    return rows


def test_every_step_is_a_module() -> None:
    modules = {path.stem for path in Path(str(command.__file__)).parent.glob("*.py")}
    assert {step.name for step in STEPS} <= modules


def test_copies_through_the_driver_double() -> None:
    with installed(Driver(0)):
        names = [row.name for row in rehearse(copies)]
    assert names[0] == "empty round trip to the driver"
    assert {"pinned cube, float32, down", "pageable frame, uint8, up", "3-D, tile into a cube on the GPU"} < set(names)


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_copies_are_skipped_without_a_driver() -> None:
    with pytest.raises(SkippedError, match="no CUDA driver"):
        copies.run(Rig("cpu", print))


@pytest.mark.slow
def test_tf32_compares_context_and_cube_three_times() -> None:
    rows = rehearse(tf32)
    assert len(rows) == 6
    assert all(row.target is not None and row.value is not None and row.value <= row.target for row in rows)


@pytest.mark.slow
def test_scans_are_right_in_the_emulator(tmp_path: Path) -> None:
    with installed_emulator(tmp_path):
        rows = rehearse(scans, emulated=True)
    errors = {row.name: float(row.note.split()[-1]) for row in rows if "error" in row.note}
    assert len(errors) == 6
    for name, error in errors.items():
        assert error <= (2e-2 if "Half" in name else 1e-5), name


def test_triton_is_measured_with_several_blocks() -> None:
    def triton_scan(x: Any, weight: Any, bias: Any) -> Any:
        used.append((module.BLOCK, module.WARPS))
        return scan_reference(x, weight, bias)

    used: list[tuple[int, int]] = []
    module = SimpleNamespace(BLOCK=128, WARPS=4, triton_scan=triton_scan)
    rows: list[Row] = []
    rig = Rig("cpu", rows.append)
    scans._measure_triton(rig, module, scans._case(rig, 1, torch.float32))
    assert len(rows) == len(set(used)) == 4
    assert (module.BLOCK, module.WARPS) == (128, 4)


@pytest.mark.slow
def test_inference_runs_eager_and_under_autocast() -> None:
    names = [row.name for row in rehearse(inference)]
    assert names == ["full, float32", "encode, float32", "decode, float32", "decode, autocast bfloat16"]


@pytest.mark.slow
def test_training_steps_run_with_each_kernel() -> None:
    rows = rehearse(training)
    assert len(rows) == 4
    assert all(row.value and row.value > 0 for row in rows)


@pytest.mark.slow
def test_gpu_tests_are_collected() -> None:
    assert rehearse(gpu_tests)[-1].value == 0


class Graphs:
    """torch.cuda's graphs and events, which run the work at once."""

    def __init__(self) -> None:
        self.replays = 0
        self.Stream = self.synchronize = lambda: None

    def stream(self, stream: Any) -> Any:
        return nullcontext()

    def CUDAGraph(self) -> Any:  # noqa: N802
        return SimpleNamespace(replay=self._replay)

    @contextmanager
    def graph(self, graph: Any, stream: Any) -> Iterator[None]:
        yield

    def Event(self, enable_timing: bool) -> Any:  # noqa: N802
        return SimpleNamespace(record=lambda: None, elapsed_time=lambda last: 4.0)

    def _replay(self) -> None:
        self.replays += 1


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Graphs]:
    graphs = Graphs()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "cuda", graphs)
        patch.setattr(torch, "manual_seed", lambda seed: None)
        yield graphs


def test_kernel_time_is_that_of_a_graph_without_the_host(graphs: Graphs) -> None:
    runs: list[int] = []
    assert Rig("cuda", print).kernel_microseconds([lambda: runs.append(0)] * 8, repeats=5) == 500
    assert (len(runs), graphs.replays) == (16, 5)


def test_frame_as_a_graph_is_replayed(graphs: Graphs) -> None:
    row = inference._graph(Rig("cuda", print), "decode", lambda: torch.zeros(1))
    assert (row.name, row.unit) == ("decode, CUDA graph", "ms")
    assert graphs.replays == 33


def test_measurement_that_fails_leaves_the_others() -> None:
    rows: list[Row] = []
    Rig("cpu", rows.append).attempt("scan", "µs", lambda: Row(name="scan", value=1 / 0, unit="µs"))
    assert rows == [Row(name="scan", value=None, unit="µs", note="failed: ZeroDivisionError: division by zero")]


def test_step_writes_its_rows_as_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "has_gpu", lambda: False)
    assert command.main(["--step", "copies", "--device", "cpu", "--rows", str(tmp_path / "rows")]) == 0
    assert json.loads((tmp_path / "rows").read_text()) == {"skipped": "no CUDA driver with a GPU"}


def test_unknown_step_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command.main(["--steps", "scan"])
    assert end.value.code == 2
    assert "steps are scan, expected some of copies, resident" in capsys.readouterr().err
