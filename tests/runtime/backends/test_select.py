"""The backend that is chosen for a folder on this machine, and engines that are never loaded."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from ccnet.contract import Artifact, ArtifactFolder, CCNetError
from ccnet.runtime.backends import select as backend
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.backends.select import Selection, select
from tests.runtime.conftest import (
    artifact,
    manifest,
    open_camera,
    refusal,
)

GRAPHS = (artifact("encode"), artifact("decode"), artifact("decode", precision="fp16"))
ENGINES = tuple(
    artifact(kind, variant, precision)
    for variant in ("tensorrt", "tensorrt_rtx")
    for kind, precision in (("encode", "fp32"), ("decode", "fp32"), ("decode", "fp16"))
)


def opened(artifacts: tuple[Artifact, ...], path: Path = Path("folder")) -> ArtifactFolder:
    return ArtifactFolder(path, manifest(artifacts=artifacts))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that sets which TensorRT libraries load and whether there is a GPU."""

    def sets(*variants: str, gpu: bool, name: str = "RTX 4090 (sm_89)") -> None:
        def load(name: str) -> None:
            if name not in variants:
                raise CCNetError(f"{name} is not installed")

        def found(device: int) -> str:
            if not gpu:
                raise CCNetError("no CUDA driver")
            return name

        monkeypatch.setattr(trt, "load", load)
        monkeypatch.setattr(trt, "available", lambda: list(variants))
        monkeypatch.setattr(backend, "gpu", found)
        monkeypatch.setattr(backend, "has_gpu", lambda: gpu)

    return sets


@pytest.mark.parametrize(
    ("variants", "gpu", "artifacts", "precision", "expected"),
    [
        (("tensorrt", "tensorrt_rtx"), True, GRAPHS + ENGINES, None, ("tensorrt", "fp16")),
        (("tensorrt", "tensorrt_rtx"), True, GRAPHS + ENGINES, "fp32", ("tensorrt", "fp32")),
        (("tensorrt_rtx",), True, GRAPHS + ENGINES, None, ("tensorrt-rtx", "fp16")),
        (("tensorrt",), False, GRAPHS + ENGINES, None, ("onnxruntime", "fp32")),
        ((), True, GRAPHS + ENGINES, "fp16", ("onnxruntime", "fp16")),
        (("tensorrt",), True, GRAPHS, None, ("onnxruntime", "fp32")),
        (("tensorrt",), True, GRAPHS + ENGINES[:1], None, ("onnxruntime", "fp32")),
        (("tensorrt",), True, GRAPHS + ENGINES[:2], "fp16", ("onnxruntime", "fp16")),
        (("tensorrt",), True, GRAPHS + ENGINES[:2], None, ("tensorrt", "fp32")),
    ],
)
def test_auto_selects_a_runnable_engine_or_onnx_runtime(
    machine: Callable[..., None],
    variants: tuple[str, ...],
    gpu: bool,
    artifacts: tuple[Artifact, ...],
    precision: Any,
    expected: tuple[str, str],
) -> None:
    machine(*variants, gpu=gpu)
    selection = select(opened(artifacts), "auto", precision)
    assert (selection.backend, selection.decode.precision) == expected
    assert (selection.encode.kind, selection.encode.precision, selection.decode.kind) == ("encode", "fp32", "decode")


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_requested_engine_is_never_replaced(machine: Callable[..., None], name: Any) -> None:
    variant = name.replace("-", "_")
    everything, graphs = opened(GRAPHS + ENGINES), opened(GRAPHS)
    machine(gpu=True)
    refusal(lambda: select(everything, name), f"{variant} is not installed")
    machine(variant, gpu=False)
    refusal(lambda: select(everything, name), "no CUDA driver")
    machine(variant, gpu=True)
    refusal(lambda: select(graphs, name), f"ccnet build FOLDER --backend {name}")
    assert select(everything, name).backend == name


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ({"version": "10.2.0", "gpu": "Orin (sm_87)"}, "built with tensorrt 10.2.0, this is 10.3.0"),
        ({"version": "10.3.0", "gpu": "RTX 4090 (sm_89)"}, r"built for RTX 4090 \(sm_89\), this is Orin"),
        ({}, "built with tensorrt None"),
        ({"version": "10.2.0", "compatible": "yes"}, "built with tensorrt 10.2.0"),
        ({"version": "10.2.0", "gpu": "RTX 4090 (sm_89)", "compatible": True}, "it is loaded"),
        ({"version": "10.3.0", "gpu": "Orin (sm_87, 16 SM)"}, "it is loaded"),
        ({"version": "10.3.0", "gpu": "Orin (sm_87)"}, "it is loaded"),
        ({"version": "10.3.0", "gpu": "Orin (sm_87, 8 SM)"}, r"built for Orin \(sm_87, 8 SM\), this is Orin .* 16 SM"),
    ],
    ids=["version", "GPU", "nothing", "not a bool", "compatible", "fitting", "0.1.0", "multiprocessors"],
)
def test_engine_of_another_machine_is_never_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, details: dict[str, Any], words: str
) -> None:
    def load(data: bytes, **options: Any) -> Any:
        raise CCNetError("it is loaded")

    monkeypatch.setattr(trt, "load", lambda name: SimpleNamespace(__version__="10.3.0"))
    monkeypatch.setattr(backend, "gpu", lambda device: "Orin (sm_87, 16 SM)")
    monkeypatch.setattr(backend, "TensorRTBackend", load)
    engine = dataclasses.replace(ENGINES[0], details=details)
    chosen = Selection(folder=opened(GRAPHS, tmp_path), backend="tensorrt", encode=engine, decode=engine)
    with pytest.raises(CCNetError, match=words):
        chosen.open(engine, b"")


def test_weights_of_a_stripped_engine_come_only_from_its_graph(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graph = b"\x0a\x08location\x12\x0b/etc/passwd"  # protobuf's words for a tensor in another file
    (tmp_path / "encode.fp32.onnx").write_bytes(graph)
    source = dataclasses.replace(GRAPHS[0], sha256=hashlib.sha256(graph).hexdigest())
    monkeypatch.setattr(trt, "load", lambda name: SimpleNamespace(__version__="10.3.0"))
    monkeypatch.setattr(backend, "gpu", lambda device: "Orin (sm_87, 16 SM)")
    monkeypatch.setattr(backend, "TensorRTBackend", lambda *_, **__: pytest.fail("it is loaded"))
    engine = dataclasses.replace(ENGINES[0], details={"version": "10.3.0", "stripped": True})
    chosen = Selection(folder=opened((source,), tmp_path), backend="tensorrt", encode=engine, decode=engine)
    with pytest.raises(CCNetError, match=r"encode\.fp32\.onnx: keeps tensors in another file"):
        chosen.open(engine, b"")


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_requested_provider_is_never_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    name: Any = f"onnxruntime-{provider}"
    refusal(lambda: open_camera(folder, backend=name), folder, 'pip install ".[cuda]"')


def test_full_is_taken_only_where_it_runs_where_decode_does(machine: Callable[..., None]) -> None:
    machine("tensorrt", gpu=True)

    def found(version: str) -> Artifact | None:
        full = dataclasses.replace(artifact("full", "tensorrt", "fp16"), details={"version": version})
        here = (dataclasses.replace(engine, details={"version": "10.3.0"}) for engine in ENGINES)
        return select(opened((*GRAPHS, *here, full)), "tensorrt").full

    assert found("10.3.0") is not None
    assert found("10.2.0") is None
