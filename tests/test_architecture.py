"""The house rules of the source: who may import whom, and what is never used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = {"ccnet": "ccnet", "export": "ccnet.export", "runtime": "ccnet.runtime", "calibration": "ccnet.calibration"}
"""Folder of the repository → the package that it installs as."""

BASE = {"ccnet", "contract", "metrics"}
ARROWS: dict[str, set[str]] = {
    "ccnet": set(),
    "contract": {"contract"},
    "metrics": {"ccnet", "metrics"},
    "model": BASE | {"model", "data", "evaluation"},
    "data": BASE | {"data", "runtime.io"},
    "evaluation": BASE | {"model", "data", "evaluation", "runtime.viz"},
    "runtime": BASE | {"runtime"},
    "export": BASE | {"model", "data", "runtime", "export"},
    "calibration": BASE | {"runtime", "calibration"},
}
"""Layer → what it may import, itself included: layers, or single packages of one, such as ``runtime.io``."""

FOREIGN: dict[str, set[str]] = {
    "runtime": {"torch", "onnx", "onnxscript", "onnx_ir"},
    "calibration": {"torch"},
}
"""Layer → libraries that it must do without."""


def modules() -> dict[str, Path]:
    """Every module of the project by its installed name."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((REPOSITORY / folder).rglob("*.py")):  # does not enter the links ccnet/runtime, …
            parts = path.relative_to(REPOSITORY / folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


MODULES = modules()
each_module = pytest.mark.parametrize("module", MODULES)


def layer(module: str) -> str:
    """The layer of a module of the project."""
    head = module.split(".")[1:2]
    if not head:
        return "ccnet"
    return head[0] if head[0] in ARROWS else "model"


def package(module: str) -> str:
    """The package of a layer that a module is in, such as ``runtime.io``."""
    return ".".join(module.split(".")[1:3])


def imports(module: str) -> set[str]:
    """The modules that a module imports anywhere, under their absolute names."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= set(_imported_from(package, node))
    return found


def _imported_from(package: str, node: ast.ImportFrom) -> Iterator[str]:
    kept = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    source = ".".join([*kept, *([node.module] if node.module else [])])
    for alias in node.names:
        name = f"{source}.{alias.name}"
        yield name if name in MODULES else source  # what is imported may be a module itself


@each_module
def test_imports_follow_the_arrows(module: str) -> None:
    imported = {name for name in imports(module) if name.partition(".")[0] == "ccnet"}
    allowed = ARROWS[layer(module)]
    assert not {name for name in imported if not {layer(name), package(name)} & allowed}


@each_module
def test_libraries_stay_in_their_layers(module: str) -> None:
    theirs = {name.partition(".")[0] for name in imports(module)} - {"ccnet"}
    if layer(module) in BASE:
        assert theirs - {"numpy"} <= sys.stdlib_module_names
    assert not theirs & FOREIGN.get(layer(module), set())


def test_every_arrow_is_seen() -> None:
    """The checks above would pass on a parser that finds nothing."""
    assert "ccnet.runtime.tiling" in imports("ccnet.runtime.reconstructor")
    assert "ccnet.runtime.backends.trt_api" in imports("ccnet.runtime.backends.select")
    assert "ccnet.model.checkpoint" in imports("ccnet.export.cli")  # inside a function
    assert "torch" in imports("ccnet.model.ccnet")


def test_the_runtime_imports_on_a_bare_machine() -> None:
    """With numpy and ONNX Runtime alone, and the command line's own library for the commands."""
    runtime = [name for name in MODULES if layer(name) == "runtime"]
    bare = ["torch", "onnx", "onnxscript", "onnx_ir", "safetensors", "cv2", "PIL", "h5py", "matplotlib", "rich"]
    script = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({bare}))  # None: an import of it fails
for name in {runtime}:
    importlib.import_module(name)
print(*sorted(name for name in sys.modules if name.startswith("ccnet.")))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert {layer(name) for name in result.stdout.split()} == {"contract", "metrics", "runtime"}


@each_module
def test_nothing_unsafe_is_used(module: str) -> None:
    assert not {name.partition(".")[0] for name in imports(module)} & {"pickle", "cPickle", "dill", "joblib", "marshal"}
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in {"torch.load", "torch.save", "os.system"}, f"line {node.lineno}"
        if isinstance(node, ast.keyword) and node.arg in {"shell", "allow_pickle"}:
            assert ast.unparse(node.value) == "False", f"line {node.lineno}"
