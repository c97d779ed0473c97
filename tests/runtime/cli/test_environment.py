"""``ccnet inspect --environment``: a report from every machine, also without packages or system files."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from ccnet import __version__
from ccnet.contract import available_cores, kernel_library_path
from ccnet.runtime.backends.select import BackendName
from ccnet.runtime.cli import environment
from ccnet.runtime.gpu.cuda import has_gpu

Ccnet = Callable[..., Any]


def test_report_names_installed_packages_and_hardware(ccnet: Ccnet) -> None:
    result = ccnet("inspect", "--environment", "--json")
    assert result.code == 0 and result.err == ""
    found = json.loads(result.out)
    assert found["system"]["ccnet"] == __version__
    assert found["system"]["Python"].startswith(platform.python_version())
    assert found["system"]["cores"] == f"{available_cores()} available"
    assert found["system"]["memory"].split()[1].startswith("GB")
    assert found["packages"]["numpy"] == np.__version__
    assert found["packages"]["torch"] == importlib.metadata.version("torch")
    assert "CPUExecutionProvider" in found["ONNX Runtime"]["providers"]
    assert found["backends"]["onnxruntime"] == "can run"
    assert found["backends"].keys() == set(get_args(BackendName)) - {"auto"}
    if not has_gpu():
        assert found["backend auto"]["with all engines"] == "onnxruntime: there is no NVIDIA GPU"
        assert found["NVIDIA"]["GPUs"].startswith("no: ")
        assert found["backends"]["tensorrt"].startswith("no: ")
    assert set(environment.PACKAGES) == found["packages"].keys()


@pytest.mark.skipif(kernel_library_path() is None, reason="needs the compiled kernels")
def test_report_describes_the_compiled_kernels() -> None:
    facts = environment.describe_environment()["compiled kernels"]
    assert facts["file"].startswith("_kernels.") and "/" not in facts["file"]
    assert facts["SIMD"] in ("128 bits", "256 bits", "512 bits")
    assert facts["ONNX Runtime operators"] == "load"


def test_report_is_one_aligned_block(ccnet: Ccnet) -> None:
    lines = ccnet("inspect", "--environment").out.splitlines()
    assert all(lines) and "system" in lines and "packages" in lines
    assert f"  ccnet  {__version__}".split() in [line.split() for line in lines]
    values = [line.index(line.split()[-1]) for line in lines if line.startswith(("  h5py ", "  numpy ", "  rich "))]
    assert len(set(values)) == 1


BARE = """
import importlib.metadata, sys
absent = ["onnxruntime", "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "torch", "onnx", "cv2", "h5py", "rich"]
sys.modules.update(dict.fromkeys(absent))  # None: an import of it fails
def version(name):
    raise importlib.metadata.PackageNotFoundError(name)
importlib.metadata.version = version
from ccnet.runtime.cli.main import main
sys.argv = ["ccnet", "inspect", "--environment", "--json"]
main()
"""


def test_machine_without_packages_gets_a_report() -> None:
    result = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, check=False)
    assert result.returncode == 0 and result.stderr == ""
    found = json.loads(result.stdout)
    assert set(found["packages"].values()) == {"not installed"}
    assert found["ONNX Runtime"]["providers"].startswith("no: onnxruntime cannot be loaded")
    assert found["backends"]["onnxruntime"].startswith("no: onnxruntime cannot be loaded")
    assert found["backends"]["tensorrt"].startswith("no: tensorrt is")
    assert found["system"]["ccnet"] == __version__


def test_report_does_not_import_torch() -> None:
    code = "import sys; from ccnet.runtime.cli.environment import describe_environment as f; f(); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "onnx", "cv2", "h5py", "matplotlib"} & set(result.stdout.split())


def test_every_failed_fact_gives_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("first line\nsecond line")

    damaged = tmp_path / "_kernels.so"
    damaged.write_bytes(b"not a library")
    for name in ("cpu_name", "_memory", "available_cores", "_onnxruntime"):
        monkeypatch.setattr(environment, name, fail)
    monkeypatch.setattr(environment, "kernel_library_path", lambda: damaged)
    monkeypatch.setattr(environment.cuda, "driver", fail)
    monkeypatch.setattr(environment.cuda, "gpus", fail)
    monkeypatch.setattr(importlib.metadata, "version", fail)
    monkeypatch.setattr(platform, "platform", fail)
    found = environment.describe_environment()
    reason = "unknown: RuntimeError: first line second line"
    failing = [found["system"][name] for name in ("CPU", "memory", "cores", "OS")]
    failing += [*found["NVIDIA"].values(), found["backends"]["onnxruntime"], *found["packages"].values()]
    assert set(failing) == {reason}
    assert found["compiled kernels"]["file"] == "_kernels.so"
    assert found["compiled kernels"]["SIMD"].startswith("unknown: OSError: ")


def test_missing_kernels_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "kernel_library_path", lambda: None)
    facts = environment.describe_environment()["compiled kernels"]
    assert all(fact.startswith("no: ccnet was installed without a C compiler") for fact in facts.values())


def test_memory_is_found_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environment, "_MEMINFO", tmp_path / "none")
    gigabytes, unit = environment._memory().split()
    assert float(gigabytes) > 0.1 and unit == "GB"


def test_memory_is_read_from_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environment, "_MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:    8000000 kB\n")
    assert environment._memory() == "16.4 GB, 8.2 GB available"
