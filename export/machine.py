"""This machine, its NVIDIA driver and GPUs or a Jetson, and the target that fits it.

The standard library alone, as it runs with the system's Python before anything is installed. Which TensorRT runs on
which GPU is asked of the table in ``runtime/backends/architectures.py``; the driver decides about CUDA.
"""

from __future__ import annotations

import platform
import re
import runpy
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Target = Literal["cpu", "gpu", "gpu-cu12", "jetson", "rtx"]

CUDA: dict[Target, tuple[int, int]] = {"gpu": (13, 580), "gpu-cu12": (12, 525)}
"""Target → its CUDA, and the oldest NVIDIA driver that runs it; the newest first."""

OLDEST_JETSON_LINUX = 36
"""The Jetson Linux of JetPack 6, the first with TensorRT 10."""

_TEGRA_RELEASE = Path("/etc/nv_tegra_release")
_TABLE = Path(__file__).parents[1] / "runtime/backends/architectures.py"  # in the repository and where it is installed
_TIMEOUT_S = 60  # without its persistence daemon a driver of eight GPUs takes many seconds


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The facts that decide what to install."""

    system: str
    """Operating system and processor, such as ``Linux x86_64``."""
    jetson_linux: str = ""
    """Release of Jetson Linux, such as ``36.4.3``; empty on other machines."""
    driver: str = ""
    """Version of the NVIDIA driver; empty without one."""
    gpus: tuple[str, ...] = ()
    """GPUs in the driver's order, such as ``NVIDIA A10 (sm_86)``, or ``NVIDIA A10`` if its architecture is unknown."""
    problem: str = ""
    """Why nvidia-smi lists no GPU."""


@dataclass(frozen=True)
class Choice:
    """A target and the reason for it, in a few words."""

    target: Target
    why: str


def detect() -> Machine:
    """Return the facts of this machine; nothing that is missing or broken is an error."""
    system = f"{platform.system()} {platform.machine()}"
    release = _TEGRA_RELEASE.read_text(errors="replace") if _TEGRA_RELEASE.is_file() else ""
    found = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", release)
    jetson_linux = f"{found[1]}.{found[2]}" if found else ""
    answer, problem = _query("name,driver_version,compute_cap")
    rows = [row.rsplit(", ", 2) for row in answer]
    if not rows and "not a valid field" in problem:  # before driver 510
        answer, problem = _query("name,driver_version")
        rows = [[*row.rsplit(", ", 1), ""] for row in answer]
    if not rows:
        return Machine(system=system, jetson_linux=jetson_linux, problem=problem)
    gpus = tuple(_gpu_name(name, compute_capability) for name, _, compute_capability in rows)
    return Machine(system=system, jetson_linux=jetson_linux, driver=rows[0][1], gpus=gpus)


def choose(machine: Machine, *, build_without_gpu: bool = True) -> Choice:
    """Choose what to install.

    Args:
        machine: The facts.
        build_without_gpu: On a machine without a GPU, install TensorRT-RTX where it can build engines without one.

    Returns:
        The target, and why.
    """
    if machine.jetson_linux or any("nvgpu" in gpu for gpu in machine.gpus):
        return _choose_on_jetson(machine)
    if not machine.gpus:
        if build_without_gpu and machine.system == "Linux x86_64":
            return Choice("rtx", f"{machine.problem}; TensorRT-RTX builds engines without a GPU, which run on others")
        return Choice("cpu", machine.problem)
    reasons = [why_unsupported("tensorrt", gpu) for gpu in machine.gpus if "(sm_" in gpu]
    if reasons and all(reasons):
        return Choice("cpu", f"TensorRT does not run here, {reasons[0]}")
    return _choose_cuda(machine)


def rtx_runs_on(machine: Machine) -> bool:
    """Return True if TensorRT-RTX, whose wheels are for CUDA 13 on Linux x86_64, runs on a GPU of the machine."""
    if machine.system != "Linux x86_64" or _major(machine.driver) < CUDA["gpu"][1]:
        return False
    return any(not why_unsupported("tensorrt_rtx", gpu) for gpu in machine.gpus)


def why_unsupported(library: str, gpu: str) -> str:
    """Ask the table of architectures why a library cannot run on a GPU; empty if it can."""
    # Run as a file: the package that it belongs to may not be installed yet
    return str(runpy.run_path(str(_TABLE))["why_unsupported"](library, gpu))


def _choose_on_jetson(machine: Machine) -> Choice:
    release = machine.jetson_linux
    if release and _major(release) < OLDEST_JETSON_LINUX:
        return Choice("cpu", f"Jetson Linux {release} has TensorRT 8, and JetPack 6 is the first with TensorRT 10")
    return Choice("jetson", f"{f'Jetson Linux {release}' if release else machine.gpus[0]}, with the system's TensorRT")


def _choose_cuda(machine: Machine) -> Choice:
    """Return the newest CUDA that the driver runs."""
    name = f"{', '.join(dict.fromkeys(machine.gpus))}, driver {machine.driver}"
    driver = _major(machine.driver)
    for target, (cuda, oldest) in CUDA.items():
        if driver >= oldest:
            return Choice(target, f"{name} runs CUDA {cuda}")
    return Choice("cpu", f"{name} is too old: CUDA {cuda} needs {oldest} or later")


def _query(fields: str) -> tuple[list[str], str]:
    """Ask nvidia-smi for fields of each GPU; return a row for each, or none and the reason."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return [], "no NVIDIA driver (there is no nvidia-smi)"
    try:
        result = subprocess.run(  # noqa: S603
            [program, f"--query-gpu={fields}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], f"nvidia-smi fails ({type(error).__name__})"
    rows = [line for line in result.stdout.splitlines() if line.count(", ") >= fields.count(",")]
    said = " ".join(f"{result.stdout} {result.stderr}".split())
    if result.returncode or not rows:
        return [], f"nvidia-smi fails ({said[:200] or f'exit code {result.returncode}'})"
    return rows, ""


def _gpu_name(name: str, compute_capability: str) -> str:
    """Return a GPU's name as ``runtime/gpu`` writes it; nvidia-smi writes ``[N/A]`` for what it does not know."""
    found = re.fullmatch(r"(\d+)\.(\d)", compute_capability)
    return f"{name} (sm_{found[1]}{found[2]})" if found else name


def _major(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0
