"""The files of ``make dist`` for other machines: an archive of the sources, and a wheel without compiled code."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ccnet.export.bundle import make_bundle
from ccnet.export.reference import by_torch
from ccnet.model import CCNet

pytest.importorskip("setuptools", minversion="77", reason="setuptools before 77 does not read this pyproject.toml")

REPOSITORY = Path(__file__).resolve().parents[1]
INGREDIENTS = ("ccnet", "export", "runtime", "calibration", "pyproject.toml", "setup.py", "README.md", "LICENSE")


def copy_sources(target: Path) -> Path:
    """Copy what the build reads, without build products."""
    target.mkdir()
    for name in INGREDIENTS:
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, target / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(path, target / name)
    return target


def build(kind: str, source: Path, **environment: str) -> Path:
    """Build a wheel or an sdist in a folder of sources, with the setuptools that is installed here."""
    code = f"import setuptools.build_meta as build; print(build.build_{kind}('dist'))"
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CCNET_PURE")}
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=source,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return source / "dist" / result.stdout.split()[-1]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", copy_sources(tmp_path_factory.mktemp("sdist") / "source"))


@pytest.fixture(scope="module")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive's own sources, from which pip builds on the other machine."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def pure_wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("pure") / "source"
    shutil.copytree(unpacked, source)
    return build("wheel", source, CCNET_PURE="1")


def package_files() -> Iterator[str]:
    """Yield every file of the package by its path in a wheel; links to folders are not entered."""
    for folder, package in (
        ("ccnet", "ccnet"),
        *((name, f"ccnet/{name}") for name in ("export", "runtime", "calibration")),
    ):
        for path in sorted((REPOSITORY / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".so", ".pyc"):
                yield f"{package}/{path.relative_to(REPOSITORY / folder).as_posix()}"


def test_wheel_for_other_machines_names_no_platform_and_has_none(pure_wheel: Path) -> None:
    assert pure_wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(pure_wheel) as wheel:
        names = wheel.namelist()
        metadata = wheel.read(next(name for name in names if name.endswith(".dist-info/WHEEL"))).decode()
    assert "Root-Is-Purelib: true" in metadata and "Tag: py3-none-any" in metadata
    assert not [name for name in names if name.endswith((".so", ".pyd", ".dylib"))]
    assert set(package_files()) <= set(names)


def test_archive_has_all_sources_and_nothing_compiled(archive: Path, unpacked: Path) -> None:
    assert archive.name.endswith(".tar.gz")
    present = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert {
        name.removeprefix("ccnet/") if name.startswith(("ccnet/export", "ccnet/runtime", "ccnet/calibration")) else name
        for name in package_files()
    } <= present
    assert not [name for name in present if name.endswith((".so", ".o"))]


@pytest.mark.slow
def test_archive_compiles_where_it_is_installed(unpacked: Path) -> None:
    """The wheel with compiled code names the platform that it was built on."""
    wheel = build("wheel", unpacked)
    assert "any" not in wheel.stem.split("-")[-1]
    with zipfile.ZipFile(wheel) as content:
        libraries = [name for name in content.namelist() if name.startswith("ccnet/csrc/_kernels")]
        assert shutil.which("cc") is None or len(libraries) == 1
        for name in libraries:
            assert ctypes.CDLL(content.extract(name, unpacked)).RegisterCustomOps


@pytest.fixture(scope="module")
def bundle(artifacts: tuple[CCNet, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    frame = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    path = tmp_path_factory.mktemp("bundle") / "ccnet-bundle.zip"
    make_bundle(artifacts[1], [by_torch(artifacts[0], frame, "noise")], path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "archive"])
def test_commands_for_a_jetson_run_a_bundle_without_torch(
    kind: str, pure_wheel: Path, archive: Path, bundle: Path, tmp_path: Path
) -> None:
    """The commands of docs/jetson.md in an empty folder with two files, as a device without TensorRT has them."""
    document = (REPOSITORY / "docs/jetson.md").read_text(encoding="utf-8")
    commands = re.search(r"```\n(python3 -m venv .*?)```", document, re.DOTALL)
    assert commands is not None
    script = commands[1] if kind == "wheel" else commands[1].replace("-py3-none-any.whl", ".tar.gz")
    for path in (bundle, pure_wheel if kind == "wheel" else archive):
        shutil.copy(path, tmp_path)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["PIP_CONSTRAINT"] = str(REPOSITORY / "constraints.txt")
    result = subprocess.run(
        ["bash", "-ec", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("passes") >= 4 and "FAILS" not in result.stdout
    command = [tmp_path / "device/bin/pip", "list", "--local", "--format=freeze"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    installed = {line.partition("==")[0] for line in listed.splitlines()}
    assert {"ccnet-hsi", "onnxruntime"} <= {name.replace("_", "-") for name in installed}
    assert not {"torch", "typer", "onnx", "rich"} & installed
