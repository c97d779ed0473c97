"""The target that fits a machine, from what nvidia-smi and Jetson Linux print there.

``machines/*.txt`` hold the commands and their output in the formats that users of these machines have published.
"""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ccnet.export import machine
from ccnet.export.machine import Choice, Machine, choose, detect, rtx_runs_on
from ccnet.runtime.backends import architectures

TRANSCRIPTS = Path(__file__).parent / "machines"


def read_transcripts() -> dict[str, dict[str, tuple[str, int]]]:
    """Return machine → command → (output, exit code)."""
    found: dict[str, dict[str, tuple[str, int]]] = {}
    for path in sorted(TRANSCRIPTS.glob("*.txt")):
        for section in re.split(r"^== ", path.read_text(), flags=re.MULTILINE)[1:]:
            name, _, text = section.partition("\n")
            found[name] = {}
            for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                code = re.search(r"^\(exit code (\d+)\)\n", output, re.MULTILINE)
                found[name][command] = (output[: code.start()] if code else output, int(code[1]) if code else 0)
    return found


RECORDED = read_transcripts()


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Machine]:
    """Return a function that detects a recorded machine."""

    def detect_recorded(name: str) -> Machine:
        recorded = RECORDED[name]

        def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
            output, code = recorded[" ".join(["nvidia-smi", *command[1:]])]
            return subprocess.CompletedProcess(command, code, output, "")

        system, processor = recorded["uname -sm"][0].split()
        has_nvidia_smi = any(command.startswith("nvidia-smi") for command in recorded)
        release = tmp_path / "nv_tegra_release"
        if "cat /etc/nv_tegra_release" in recorded:
            release.write_text(recorded["cat /etc/nv_tegra_release"][0])
        monkeypatch.setattr(machine, "_TEGRA_RELEASE", release)
        monkeypatch.setattr(platform, "system", lambda: system)
        monkeypatch.setattr(platform, "machine", lambda: processor)
        monkeypatch.setattr(machine.shutil, "which", lambda program: f"/usr/bin/{program}" if has_nvidia_smi else None)
        monkeypatch.setattr(machine.subprocess, "run", run)
        return detect()

    return detect_recorded


@pytest.mark.parametrize(
    ("name", "target", "why"),
    [
        ("orin_nano", "jetson", "Jetson Linux 36.4.7, with the system's TensorRT"),
        ("orin_agx", "jetson", "Jetson Linux 36.4.3, with the system's TensorRT"),
        ("orin_without_release_file", "jetson", "Orin (nvgpu), with the system's TensorRT"),
        ("thor", "jetson", "Jetson Linux 38.2.0, with the system's TensorRT"),
        ("xavier", "cpu", "Jetson Linux 35.4.1 has TensorRT 8, and JetPack 6 is the first with TensorRT 10"),
        ("rtx_2080_ti", "gpu", "NVIDIA GeForce RTX 2080 Ti (sm_75), driver 580.159.03 runs CUDA 13"),
        ("rtx_3060", "gpu-cu12", "NVIDIA GeForce RTX 3060 (sm_86), driver 550.54.14 runs CUDA 12"),
        ("rtx_4090", "gpu", "NVIDIA GeForce RTX 4090 (sm_89), driver 580.95.05 runs CUDA 13"),
        ("rtx_5090", "gpu", "NVIDIA GeForce RTX 5090 (sm_120), driver 580.65.06 runs CUDA 13"),
        ("a10", "gpu", "NVIDIA A10 (sm_86), driver 580.105.08 runs CUDA 13"),
        ("v100", "cpu", "TensorRT does not run here, Tesla V100-SXM2-16GB (sm_70) is older than 7.5 (Turing)"),
        ("h100", "gpu", "NVIDIA H100 80GB HBM3 (sm_90), driver 580.82.07 runs CUDA 13"),
        ("h200", "gpu-cu12", "NVIDIA H200 (sm_90), driver 570.124.06 runs CUDA 12"),
        ("gb10", "gpu", "NVIDIA GB10 (sm_121), driver 580.95.05 runs CUDA 13"),
        (
            "two_gpus",
            "gpu-cu12",
            "NVIDIA TITAN V (sm_70), NVIDIA RTX 5880 Ada Generation (sm_89), driver 570.86.15 runs CUDA 12",
        ),
        ("old_driver", "cpu", "NVIDIA GeForce RTX 3090, driver 470.182.03 is too old: CUDA 12 needs 525 or later"),
        (
            "old_nvidia_smi_with_new_driver",
            "gpu",
            "NVIDIA RTX PRO 2000 Blackwell Generation Laptop GPU, driver 580.95.05 runs CUDA 13",
        ),
        ("raspberry_pi", "cpu", "no NVIDIA driver (there is no nvidia-smi)"),
        ("mac", "cpu", "no NVIDIA driver (there is no nvidia-smi)"),
    ],
)
def test_target_of_a_machine(at: Callable[[str], Machine], name: str, target: Any, why: str) -> None:
    for build_without_gpu in (True, False):
        assert choose(at(name), build_without_gpu=build_without_gpu) == Choice(target, why)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_driver", "no NVIDIA driver (there is no nvidia-smi)"),
        (
            "driver_not_running",
            "nvidia-smi fails (NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure"
            " that the latest NVIDIA driver is installed and running.)",
        ),
        ("no_devices", "nvidia-smi fails (No devices were found)"),
    ],
)
def test_without_a_gpu_a_desktop_builds_engines_and_a_device_does_not(
    at: Callable[[str], Machine], name: str, why: str
) -> None:
    found = at(name)
    assert choose(found) == Choice("rtx", f"{why}; TensorRT-RTX builds engines without a GPU, which run on others")
    assert choose(found, build_without_gpu=False) == Choice("cpu", why)


def test_every_recorded_machine_is_tested() -> None:
    tested = {"no_driver", "driver_not_running", "no_devices"}
    for mark in test_target_of_a_machine.pytestmark:  # type: ignore[attr-defined]
        tested |= {case[0] for case in mark.args[1]}
    assert tested == set(RECORDED)


def test_nvidia_smi_that_hangs_or_cannot_start_is_no_error(
    at: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    at("rtx_4090")
    for error in (subprocess.TimeoutExpired("nvidia-smi", 60), PermissionError(13, "Permission denied")):

        def fail(*_: Any, failure: Exception = error, **__: Any) -> None:
            raise failure

        monkeypatch.setattr(machine.subprocess, "run", fail)
        assert detect() == Machine(system="Linux x86_64", problem=f"nvidia-smi fails ({type(error).__name__})")


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_choice_agrees_with_the_table_of_architectures(at: Callable[[str], Machine], name: str) -> None:
    """The installation, the choice of a backend and the build of engines agree on TensorRT and TensorRT-RTX."""
    found = at(name)
    known = [gpu for gpu in found.gpus if architectures.capability(gpu)]
    if choose(found).target in ("gpu", "gpu-cu12") and known:
        assert not all(architectures.why_unsupported("tensorrt", gpu) for gpu in known)
    if rtx_runs_on(found):
        assert not all(architectures.why_unsupported("tensorrt_rtx", gpu) for gpu in known)
        assert int(found.driver.partition(".")[0]) >= 580 and found.system == "Linux x86_64"


def test_rtx_takes_the_place_of_tensorrt_where_its_table_and_the_driver_allow(at: Callable[[str], Machine]) -> None:
    allowed = {name for name in RECORDED if rtx_runs_on(at(name))}
    assert allowed == {"rtx_2080_ti", "rtx_4090", "rtx_5090", "a10"}


def test_table_is_the_one_of_the_runtime() -> None:
    assert Path(str(architectures.__file__)).samefile(machine._TABLE)
    for gpu in ("Orin (sm_87)", "NVIDIA H200 (sm_90)", "Tesla V100-SXM2-16GB (sm_70)"):
        for library in ("tensorrt", "tensorrt_rtx"):
            assert machine.why_unsupported(library, gpu) == architectures.why_unsupported(library, gpu)
