"""The table of architectures, and what is chosen on each machine by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from ccnet.contract import ArtifactFolder, CCNetError
from ccnet.runtime.backends import architectures
from ccnet.runtime.backends import onnxruntime as ort_backend
from ccnet.runtime.backends import select as backend
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.backends.onnxruntime import cuda_refusal
from ccnet.runtime.backends.select import Selection, select
from tests.runtime.backends.test_select import ENGINES, GRAPHS
from tests.runtime.conftest import manifest, open_camera

MACHINES = {
    "RTX 2080 Ti (sm_75)": ("tensorrt", "tensorrt-rtx", (7, 5)),
    "A10 (sm_86)": ("tensorrt", "tensorrt-rtx", None),
    "RTX 3060 (sm_86)": ("tensorrt", "tensorrt-rtx", None),
    "Orin AGX (sm_87)": ("tensorrt", "onnxruntime-cuda", None),
    "Orin Nano (sm_87)": ("tensorrt", "onnxruntime-cuda", None),
    "RTX 4090 (sm_89)": ("tensorrt", "tensorrt-rtx", None),
    "H200 (sm_90)": ("tensorrt", "onnxruntime-cuda", None),
    "Thor (sm_110)": ("tensorrt", "onnxruntime-cuda", None),
    "RTX 5090 (sm_120)": ("tensorrt", "tensorrt-rtx", None),
    "GTX 1080 (sm_61)": ("onnxruntime-cuda", "onnxruntime-cuda", None),
    "": ("onnxruntime", "onnxruntime", None),
}
"""GPU → the backend with both TensorRTs, the backend without TensorRT, the architecture that RTX's engines name."""


def simulate(monkeypatch: pytest.MonkeyPatch, gpu: str, loads: list[str], cuda: bool) -> None:
    """Pretend a machine with GPUs, separated by " + "; the CUDA provider starts there or not."""
    names = gpu.split(" + ") if gpu else []

    def found(device: int) -> str:
        if device >= len(names):
            raise CCNetError(f"device is {device}")
        return names[device]

    monkeypatch.setattr(trt, "available", lambda: loads)
    monkeypatch.setattr(backend, "has_gpu", lambda: bool(gpu))
    monkeypatch.setattr(backend, "gpu", found)
    monkeypatch.setattr(trt, "load", lambda name: SimpleNamespace(__version__="1.7.1"))
    monkeypatch.setattr(backend, "cuda_refusal", lambda device: "" if cuda else "no CUDAExecutionProvider")


FOLDER = ArtifactFolder(Path("folder"), manifest(artifacts=GRAPHS + ENGINES))


@pytest.mark.parametrize("gpu", MACHINES)
def test_auto_follows_the_table_and_says_why(monkeypatch: pytest.MonkeyPatch, gpu: str) -> None:
    both, rtx_only, target = MACHINES[gpu]
    assert architectures.target(gpu) == target
    simulate(monkeypatch, gpu, ["tensorrt", "tensorrt_rtx"], cuda=True)
    assert select(FOLDER).backend == both
    simulate(monkeypatch, gpu, ["tensorrt_rtx"], cuda=True)
    chosen = select(FOLDER)
    assert chosen.backend == rtx_only and "\n" not in chosen.why
    assert (gpu or "no NVIDIA GPU") in chosen.why
    assert ("no kernels" in chosen.why) == (rtx_only == "onnxruntime-cuda")
    simulate(monkeypatch, gpu, [], cuda=False)
    last = select(FOLDER)
    assert last.backend == "onnxruntime" and bool(gpu) == ("no CUDAExecutionProvider" in last.why)


def test_describe_and_inspect_say_which_and_why(
    monkeypatch: pytest.MonkeyPatch, folder: Path, ccnet: Callable[..., Any]
) -> None:
    simulate(monkeypatch, "H200 (sm_90)", [], cuda=False)
    reason = "onnxruntime: nothing else runs on H200 (sm_90); tensorrt: not installed"
    with open_camera(folder) as reconstruct:
        assert reconstruct.describe()["chosen"].startswith(reason)
    line = ccnet("inspect", folder).out.splitlines()[-1]
    assert line.startswith("backend auto") and reason in line


def test_a_named_backend_is_not_explained_by_the_machine() -> None:
    assert select(FOLDER, "onnxruntime").why == "it was asked for"


@pytest.mark.parametrize(
    ("gpu", "built_for", "words"),
    [
        ("RTX 2080 Ti (sm_75)", "", "built for compute capability 8.6, 8.9, 12.0, this is RTX 2080 Ti"),
        ("RTX 4090 (sm_89)", "7.5", "built for compute capability 7.5, this is RTX 4090"),
        ("H200 (sm_90)", "", "no kernels for H200"),
        ("RTX 2080 Ti (sm_75)", "7.5", "it is loaded"),
        ("RTX 4090 (sm_89)", "", "it is loaded"),
    ],
)
def test_an_engine_for_other_architectures_is_never_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpu: str, built_for: str, words: str
) -> None:
    def load(data: bytes, **options: Any) -> Any:
        raise CCNetError("it is loaded")

    simulate(monkeypatch, gpu, ["tensorrt_rtx"], cuda=False)
    monkeypatch.setattr(backend, "TensorRTBackend", load)
    engine = replace(ENGINES[3], details={"version": "1.7.1", "capability": built_for})
    chosen = Selection(
        folder=ArtifactFolder(tmp_path, FOLDER.manifest), backend="tensorrt-rtx", encode=engine, decode=engine
    )
    with pytest.raises(CCNetError, match=words):
        chosen.open(engine, b"")


def test_engine_of_the_second_gpu_runs_on_the_second_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened: list[int] = []
    simulate(monkeypatch, "A10 (sm_86) + RTX 4090 (sm_89)", ["tensorrt"], cuda=False)
    monkeypatch.setattr(backend, "TensorRTBackend", lambda *_, device, **__: opened.append(device))
    engine = replace(ENGINES[0], details={"version": "1.7.1", "gpu": "RTX 4090 (sm_89)"})
    chosen = Selection(
        folder=ArtifactFolder(tmp_path, FOLDER.manifest), backend="tensorrt", encode=engine, decode=engine
    )
    with pytest.raises(CCNetError, match=r"built for RTX 4090 \(sm_89\), this is A10"):
        chosen.open(engine, b"")
    replace(chosen, device=1).open(engine, b"")
    assert opened == [1]


def test_auto_looks_at_the_gpu_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(monkeypatch, "RTX 4090 (sm_89) + H200 (sm_90)", ["tensorrt_rtx"], cuda=True)
    chosen = [select(FOLDER, device=index) for index in (0, 1)]
    assert [one.backend for one in chosen] == ["tensorrt-rtx", "onnxruntime-cuda"]
    assert [one.device for one in chosen] == [0, 1]
    assert "it runs on H200" in chosen[1].why
    for gpus in ("RTX 4090 (sm_89) + H200 (sm_90)", ""):
        simulate(monkeypatch, gpus, ["tensorrt_rtx"], cuda=True)
        with pytest.raises(CCNetError, match="device is 2"):
            select(FOLDER, device=2)


def test_an_old_name_fits_each_number_of_multiprocessors() -> None:
    nano, agx = "Orin (sm_87, 8 SM)", "Orin (sm_87, 16 SM)"
    assert architectures.is_same_gpu(nano, nano) and architectures.is_same_gpu("Orin (sm_87)", nano)
    assert not architectures.is_same_gpu(nano, agx)
    assert not architectures.is_same_gpu("A10 (sm_86)", nano)
    assert architectures.capability(nano) == (8, 7)


@pytest.mark.parametrize("starts", [True, False])
def test_the_cuda_provider_is_tried_and_not_only_listed(monkeypatch: pytest.MonkeyPatch, starts: bool) -> None:
    class Session(onnxruntime.InferenceSession):
        def __init__(self, data: bytes, options: Any, *, providers: Any, **others: Any) -> None:
            super().__init__(data, options, providers=["CPUExecutionProvider"], **others)

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider"] if starts else ["CPUExecutionProvider"]

    assert "no CUDAExecutionProvider" in cuda_refusal.__wrapped__() or "CUDA" in str(
        onnxruntime.get_available_providers()
    )
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(ort_backend._onnxruntime(), "InferenceSession", Session)
    why = cuda_refusal.__wrapped__()
    assert why == "" if starts else "does not start here" in why


@pytest.mark.skipif("tensorrt_rtx" not in trt.available(), reason="tensorrt_rtx is not installed")
def test_the_table_is_what_tensorrt_rtx_names() -> None:
    members = trt.load("tensorrt_rtx").ComputeCapability.__members__
    named = {(int(name[2:-1]), int(name[-1])) for name in members if name.startswith("SM")}
    assert named == set(architectures.TENSORRT_RTX)
