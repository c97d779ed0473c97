"""Changes of the source that require a new export or a new check, and changes that do not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ccnet.contract import ArtifactFolder, Manifest
from ccnet.export import fingerprint
from ccnet.export.fingerprint import CHECK_SOURCES, GRAPH_SOURCES, ROOTS, Sources, check_fingerprint, export_fingerprint
from tests.runtime.gpu.driver_double import Driver, installed


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "any.safetensors"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Path]:
    """Copy the packages that the fingerprints cover, so that tests may change them."""
    roots = {package: tmp_path / "copies" / package for package in ROOTS}
    for package, root in ROOTS.items():
        shutil.copytree(
            root, roots[package], ignore=lambda folder, names: [n for n in names if Path(n).suffix == ".so"]
        )
    monkeypatch.setattr(fingerprint, "ROOTS", roots)
    return roots


def edit(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("package", "module"),
    [
        ("ccnet", "model/blocks.py"),
        ("ccnet", "ops/scan.py"),
        ("ccnet", "contract/spec.py"),
        ("export", "graph/fuse.py"),
        ("export", "artifacts.py"),
    ],
)
def test_module_that_shapes_graphs_makes_a_new_export(
    copies: Mapping[str, Path], weights: Path, package: str, module: str
) -> None:
    before = export_fingerprint(weights, "float32")
    assert export_fingerprint(weights, "float32") == before
    edit(copies[package] / module)
    assert export_fingerprint(weights, "float32") != before


def test_any_other_module_makes_no_new_export(copies: Mapping[str, Path], weights: Path) -> None:
    before = export_fingerprint(weights, "float32")
    for package, module in (
        ("runtime", "stream/pipeline.py"),
        ("runtime", "viz/plots.py"),
        ("runtime", "cli/main.py"),
        ("export", "cli/export.py"),
        ("export", "bench/report.py"),
        ("export", "engine/builder.py"),
        ("ccnet", "training/trainer.py"),
    ):
        edit(copies[package] / module)
    assert export_fingerprint(weights, "float32") == before


def test_new_module_in_a_sub_folder_makes_a_new_export(copies: Mapping[str, Path], weights: Path) -> None:
    before = export_fingerprint(weights, "float32")
    new = copies["export"] / "graph" / "deeper" / "still_deeper"
    new.mkdir(parents=True)
    (new / "a_pass.py").write_text("")
    assert export_fingerprint(weights, "float32") != before


def test_weights_and_options_make_a_new_export(weights: Path) -> None:
    before = export_fingerprint(weights, "float32")
    assert export_fingerprint(weights, "uint8") != before
    weights.write_bytes(b"other weights")
    assert export_fingerprint(weights, "float32") != before


@pytest.mark.parametrize(
    ("package", "module", "again"),
    [
        ("export", "verify.py", True),
        ("runtime", "quality/tolerances.py", True),
        ("runtime", "backends/onnxruntime.py", True),
        ("ccnet", "metrics/__init__.py", True),
        ("runtime", "stream/pipeline.py", False),
        ("export", "cli/tables.py", False),
        ("export", "graph/fuse.py", False),  # the graphs themselves are in the fingerprint
    ],
)
def test_module_that_computes_the_check_makes_a_new_check(
    copies: Mapping[str, Path], weights: Path, tmp_path: Path, package: str, module: str, again: bool
) -> None:
    manifest = Manifest(config={}, weights_sha256="", context_size=3, input="float32", tools={})
    folder = ArtifactFolder(tmp_path, manifest)
    before = check_fingerprint(folder, weights, [], [320])
    edit(copies[package] / module)
    assert (check_fingerprint(folder, weights, [], [320]) != before) is again


def test_another_gpu_makes_a_new_check(weights: Path, tmp_path: Path) -> None:
    manifest = Manifest(config={}, weights_sha256="", context_size=3, input="float32", tools={})
    folder, found = ArtifactFolder(tmp_path, manifest), []
    for gpus, name, device in ((0, b"", 0), (2, b"Orin", 0), (2, b"Orin", 1), (2, b"Thor", 1)):
        driver = Driver()
        driver.gpus, driver.name = gpus, name
        with installed(driver):
            found.append(check_fingerprint(folder, weights, [], [320], device))
            assert check_fingerprint(folder, weights, [], [320], device) == found[-1]
            assert not driver.contexts, "a fingerprint takes no memory on a GPU"
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("sources", [GRAPH_SOURCES, CHECK_SOURCES], ids=["graphs", "check"])
def test_every_source_exists(sources: Sources) -> None:
    entries = [ROOTS[package] / entry for package, names in sources.items() for entry in names]
    assert all(entry.exists() and fingerprint.modules(entry) for entry in entries)


def test_every_module_that_shapes_graphs_is_in_the_fingerprint() -> None:
    """Return the modules that the exporter's passes and the network import, without errors, files and the machine."""
    script = """
import sys
from pathlib import Path
import ccnet.export.graph.cut, ccnet.export.graph.fuse, ccnet.export.graph.mixed_precision, ccnet.export.graph.trace
print(*(module.__file__ for name, module in sys.modules.items() if name.startswith("ccnet") and module.__file__))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    imported = {Path(file).resolve() for file in done.stdout.split()}
    hashed = {
        path.resolve()
        for package, names in GRAPH_SOURCES.items()
        for entry in names
        for path in fingerprint.modules(ROOTS[package] / entry)
    }
    missing = {path for path in imported - hashed if path.name != "__init__.py"}
    assert {f"{path.parent.name}/{path.name}" for path in missing} <= {
        "contract/artifact_folder.py",
        "contract/closing.py",
        "contract/errors.py",
        "contract/files.py",
        "contract/machine.py",
    }
