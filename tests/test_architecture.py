"""The house rules of the source: who may import whom, how large files may be, and what is never used."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = {"ccnet": "ccnet", "export": "ccnet.export", "runtime": "ccnet.runtime", "calibration": "ccnet.calibration"}
"""Folder of the repository → the package that it installs as."""

ARROWS: dict[str, set[str]] = {
    "ccnet.contract": set(),
    "ccnet.metrics": {"ccnet.contract"},
    "ccnet.ops": {"ccnet.contract"},
    "ccnet.model": {"ccnet.contract", "ccnet.ops"},
    "ccnet.data": {"ccnet.contract", "ccnet.runtime.io"},
    "ccnet.evaluation": {
        "ccnet.contract",
        "ccnet.metrics",
        "ccnet.model",
        "ccnet.data",
        "ccnet.runtime.io",
        "ccnet.runtime.viz",
    },
    "ccnet.training": {
        "ccnet.contract",
        "ccnet.metrics",
        "ccnet.ops",
        "ccnet.model",
        "ccnet.data",
        "ccnet.evaluation",
        "ccnet.runtime.viz",
    },
    "ccnet.runtime": {"ccnet.contract", "ccnet.metrics"},
    "ccnet.runtime.backends": {"ccnet.contract", "ccnet.runtime.gpu"},
    "ccnet.runtime.gpu": {"ccnet.contract"},
    "ccnet.export": {"ccnet.contract", "ccnet.metrics", "ccnet.ops", "ccnet.model", "ccnet.runtime"},
    "ccnet.export.bench": {
        "ccnet.contract",
        "ccnet.ops",
        "ccnet.model",
        "ccnet.runtime",
        "ccnet.export",
        "ccnet.training",
    },
    "ccnet.export.gpu_day": {"ccnet.contract", "ccnet.ops", "ccnet.model", "ccnet.runtime", "ccnet.training"},
    "ccnet.calibration": {"ccnet.contract", "ccnet.metrics", "ccnet.runtime"},
}
"""Package → the packages that it may import, besides itself and ``ccnet``, which holds the version alone.

The command lines (modules named ``cli``) may import ``ccnet.runtime.cli.options`` as well.
"""

NUMPY_ONLY = {"ccnet", "ccnet.contract", "ccnet.metrics"}
"""Packages that import nothing but numpy and the standard library."""

FOREIGN: dict[str, set[str]] = {
    "ccnet.runtime": {"torch", "onnx", "onnxscript", "onnx_ir"},
    "ccnet.calibration": {"torch"},
    "ccnet.data": {"torch"},
}
"""Package → libraries that it must not import, nor may its sub-packages."""

SOURCES = ("ccnet", "export", "runtime", "calibration", "tests", "examples")
MAX_ENTRIES, MAX_LINES, MAX_FUNCTION_LINES = 14, 350, 50


def within(module: str, package: str) -> bool:
    """Return True if a module is a package or inside it."""
    return module == package or module.startswith(f"{package}.")


def find_modules() -> dict[str, Path]:
    """Return every module of the project by its installed name."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((REPOSITORY / folder).rglob("*.py")):  # does not enter the links ccnet/runtime, …
            parts = path.relative_to(REPOSITORY / folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


MODULES = find_modules()
each_module = pytest.mark.parametrize("module", MODULES)


def layer(module: str) -> str:
    """Return the innermost package of ARROWS that a module belongs to, or ``ccnet``."""
    return max((package for package in ARROWS if within(module, package)), key=len, default="ccnet")


def imports(module: str) -> set[str]:
    """Return the absolute names of all modules that a module imports, inside functions too."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= set(imports_from(package, node))
    return found


def imports_from(package: str, node: ast.ImportFrom) -> Iterator[str]:
    """Yield the modules that a ``from … import …`` inside a package names."""
    parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    source = ".".join([*parents, *([node.module] if node.module else [])])
    for alias in node.names:
        name = f"{source}.{alias.name}"
        yield name if name in MODULES else source  # the imported name may be a module itself


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def may_import(module: str, imported: str) -> bool:
    """Return True if the arrows allow that one module of the project imports another."""
    if imported == "ccnet" or within(imported, layer(module)):
        return True
    if imported == "ccnet.runtime.cli.options" and "cli" in module.split("."):
        return True
    if within(imported, "ccnet.runtime.cli"):
        return within(module, "ccnet.runtime.cli")
    return any(within(imported, package) for package in ARROWS.get(layer(module), ()))


@each_module
def test_imports_follow_the_arrows(module: str) -> None:
    project = {name for name in imports(module) if within(name, "ccnet")}
    against = {f"{module} -> {name}" for name in project if not may_import(module, name)}
    assert not against


@each_module
def test_libraries_stay_in_their_packages(module: str) -> None:
    libraries = {name.partition(".")[0] for name in imports(module)} - {"ccnet"}
    if layer(module) in NUMPY_ONLY:
        assert libraries - {"numpy"} <= sys.stdlib_module_names
    for package, foreign in FOREIGN.items():
        assert not within(module, package) or not libraries & foreign


def test_import_checks_detect_violations() -> None:
    """The checks above would pass if no import were found or every import allowed."""
    assert "ccnet.runtime.tiles.frame_path" in imports("ccnet.runtime.reconstructor")
    assert "ccnet.runtime.backends.trt_api" in imports("ccnet.runtime.backends.select")
    assert "ccnet.model.checkpoint" in imports("ccnet.export.cli.export")  # inside a function
    assert "torch" in imports("ccnet.model.ccnet")
    assert not may_import("ccnet.model.ccnet", "ccnet.training.trainer")
    assert not may_import("ccnet.runtime.reconstructor", "ccnet.model.ccnet")
    assert not may_import("ccnet.training.trainer", "ccnet.runtime.cli.options")


def test_runtime_imports_on_a_bare_machine() -> None:
    """Import the runtime with numpy, ONNX Runtime and the command line's own library alone."""
    runtime = [name for name in MODULES if within(name, "ccnet.runtime")]
    absent = ["torch", "onnx", "onnxscript", "onnx_ir", "safetensors", "cv2", "PIL", "h5py", "matplotlib", "rich"]
    script = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({absent}))  # None: an import of it fails
for name in {runtime}:
    importlib.import_module(name)
print(*sorted(name for name in sys.modules if name.startswith("ccnet.")))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    packages = {".".join(name.split(".")[:2]) for name in result.stdout.split()}
    assert packages == {"ccnet.contract", "ccnet.metrics", "ccnet.runtime"}


@each_module
def test_nothing_unsafe_is_used(module: str) -> None:
    assert not {name.partition(".")[0] for name in imports(module)} & {"pickle", "cPickle", "dill", "joblib", "marshal"}
    for node in ast.walk(parse(MODULES[module])):
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in {"torch.load", "torch.save", "os.system"}, f"line {node.lineno}"
        if isinstance(node, ast.keyword) and node.arg in {"shell", "allow_pickle"}:
            assert ast.unparse(node.value) == "False", f"line {node.lineno}"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "ccnet/model").glob("*.py")), ids=lambda path: path.name)
def test_model_chooses_no_kernel(path: Path) -> None:
    """Kernels, compilers and exporters are the business of ``ccnet.ops``."""
    assert not re.findall(
        r"is_plain|native\(|is_compiling|is_exporting|literal|reference_ops|launch|_supported",
        path.read_text(encoding="utf-8"),
    )


def test_every_package_is_installed() -> None:
    folders = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert sorted(PYPROJECT["tool"]["setuptools"]["packages"]) == sorted(folders)
    assert {package: folder for folder, package in FOLDERS.items()} == PYPROJECT["tool"]["setuptools"]["package-dir"]


def source_folders() -> Iterator[Path]:
    """Yield every folder of sources, tests and examples; links to folders are not entered."""
    for source in SOURCES:
        yield REPOSITORY / source
        for path in sorted((REPOSITORY / source).rglob("*/")):
            if path.is_dir() and not path.is_symlink() and path.name != "__pycache__":
                yield path


def entries(folder: Path) -> list[Path]:
    """Return what a folder shows in a fresh clone: no caches, no compiled library."""
    built = {"__pycache__", ".so", ".pyd"}
    return [path for path in sorted(folder.iterdir()) if not {path.name, path.suffix} & built]


def source_files(*suffixes: str) -> list[str]:
    """Return the files with some suffixes, relative to the repository."""
    files = (path for folder in source_folders() for path in entries(folder) if path.suffix in suffixes)
    return [path.relative_to(REPOSITORY).as_posix() for path in files if path.is_file()]


@pytest.mark.parametrize("folder", list(source_folders()), ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_folder_has_at_most_14_entries(folder: Path) -> None:
    assert len(entries(folder)) <= MAX_ENTRIES


@pytest.mark.parametrize("file", source_files(".py", ".c", ".h"))
def test_file_has_at_most_350_lines(file: str) -> None:
    lines = len((REPOSITORY / file).read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES


def python_functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield name and lines of each function; of a command, whose options make its signature long, the body alone."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            command = any(re.search(r"\.(command|callback)\b", ast.unparse(one)) for one in node.decorator_list)
            body = node.body[1:] if ast.get_docstring(node) else node.body
            start = (body[0].lineno if body else node.end_lineno) if command else node.lineno
            yield node.name, (node.end_lineno or 0) - (start or 0) + 1


def c_functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield name and lines of each function: from a head at the line's start to a brace at a line's start."""
    head = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        if match := re.match(r"[A-Za-z_][\w *]*?(\w+)\(", line):
            head = match[1], number
        elif line.rstrip() == "}" and head:
            yield head[0], number - head[1] + 1
            head = None


@pytest.mark.parametrize("file", source_files(".py", ".c", ".h"))
def test_function_has_at_most_50_lines(file: str) -> None:
    functions = python_functions if file.endswith(".py") else c_functions
    long = {f"{file}:{name}" for name, lines in functions(REPOSITORY / file) if lines > MAX_FUNCTION_LINES}
    assert not long


def test_size_checks_measure_functions() -> None:
    """The checks above would pass if no function were found."""
    assert dict(python_functions(Path(__file__)))["parse"] == 2
    for file in source_files(".c"):
        has_code = "{" in (REPOSITORY / file).read_text()  # activations.c holds constants only
        assert not has_code or [lines for _, lines in c_functions(REPOSITORY / file) if lines > 1], file


def test_hooks_run_what_make_lint_runs() -> None:
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert recipe is not None
    linted = {command.removesuffix(".").strip() for command in re.findall(r"\$\(BIN\)/(.*)", recipe[1])}
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    entries = {hook["entry"].removeprefix(".venv/bin/").replace(" --force-exclude", "") for hook in hooks}
    assert {command.replace(" --check", "") for command in linted} == entries
