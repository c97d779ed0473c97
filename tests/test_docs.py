"""The documents are true: commands, options, make targets, files, links and the tree of the repository."""

from __future__ import annotations

import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from ccnet.export.machine import Target
from ccnet.runtime.cli.app import build_app

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "ccnet/weights/README.md")),
    *sorted(REPOSITORY.glob("docs/**/*.md")),
]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
NAMES = {path: path.relative_to(REPOSITORY).as_posix() for path in DOCUMENTS}
APP = build_app()[0]
ROOT: Any = typer.main.get_command(APP)

FENCE = re.compile(r"^ *```([^\n]*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SOURCE_FOLDERS = ("ccnet", "export", "runtime", "calibration")


def blocks(path: Path) -> list[str]:
    """Return the fenced shell blocks of a document, without their fences."""
    return [
        code for language, code in FENCE.findall(path.read_text(encoding="utf-8")) if language in ("", "sh", "bash")
    ]


def prose(path: Path) -> str:
    """Return a document without its fenced blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def spans(path: Path) -> list[str]:
    """Return the code inside a document's sentences."""
    return re.findall(r"`([^`\n]+)`", prose(path))


def calls_in_blocks(program: str) -> Iterator[tuple[str, str]]:
    """Yield (document, arguments) of each call of a program in the blocks."""
    for path in DOCUMENTS:
        for line in itertools.chain.from_iterable(code.replace("\\\n", " ").splitlines() for code in blocks(path)):
            for call in re.split(r"&&|\||;|>", re.sub(r"(^|\s)#.*", "", line)):
                words = call.strip().removeprefix("$ ").split(maxsplit=1)
                if words and words[0].rpartition("/")[2] == program:
                    yield NAMES[path], words[1] if words[1:] else ""


def commands_in_sentences(program: str) -> Iterator[tuple[str, str]]:
    """Yield (document, word) of each word that follows the program's name in code inside a sentence."""
    for path in DOCUMENTS:
        for span in spans(path):
            if match := re.match(rf"{program} ([a-z][\w-]*)", span):
                yield NAMES[path], match[1]


def tree(block: str) -> list[str]:
    """Return the paths of a file tree, which has one path and its purpose in a line, indented below its folder."""
    paths: list[str] = []
    folders: list[tuple[int, str]] = []
    for line in filter(str.strip, block.splitlines()):
        column, name = len(line) - len(line.lstrip()), line.split()[0]
        while folders and folders[-1][0] >= column:
            folders.pop()
        paths.append((folders[-1][1] if folders else "") + name)
        if name.endswith("/"):
            folders.append((column, paths[-1]))
    return paths


TREE = list(itertools.chain.from_iterable(tree(block) for block in blocks(REPOSITORY / "docs/architecture.md")))


def anchors(path: Path) -> set[str]:
    """Return the anchors that a forge gives to a document's headings."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> Iterator[tuple[str, str]]:
    """Yield (document, target) of each link and picture that stays in the repository."""
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
            if not re.match(r"[a-z]+:", target):
                yield NAMES[path], target


def file_names() -> Iterator[tuple[str, str]]:
    """Yield (document, path) of each file of the repository that a sentence names in code."""
    folders = "|".join((*SOURCE_FOLDERS, "tests", "examples", "docs"))
    for path in DOCUMENTS:
        for span in spans(path):
            if re.fullmatch(rf"(?:{folders})/[\w./-]+", span) and NAMES[path] != "CHANGELOG.md":
                yield NAMES[path], span


def test_documents_contain_the_items_that_are_checked() -> None:
    """The checks below would pass on empty documents."""
    commands = {(name, arguments.split()[0]) for name, arguments in calls_in_blocks("ccnet") if arguments}
    assert ("README.md", "reconstruct") in commands
    assert {("README.md", "engine"), ("README.md", "test")} <= {
        *calls_in_blocks("make"),
        *commands_in_sentences("make"),
    }
    assert "runtime/io/frames.py" in TREE
    assert ("README.md", "docs/status.md") in set(links())
    assert ("docs/decisions.md", "ccnet/model/ablations.py") in set(file_names())


@pytest.mark.parametrize(("document", "arguments"), sorted(set(calls_in_blocks("ccnet"))))
def test_command_in_a_code_block_parses(document: str, arguments: str) -> None:
    """The real parser knows every option, choice and required argument; nothing is run."""
    try:
        context = ROOT.make_context("ccnet", shlex.split(arguments))
        name, command, rest = ROOT.resolve_command(context, [*context._protected_args, *context.args])
        command.make_context(name, rest, parent=context)
    except typer.Exit as exit:
        assert exit.exit_code == 0  # --help, --version


@pytest.mark.parametrize(("document", "command"), sorted(set(commands_in_sentences("ccnet"))))
def test_command_named_in_a_sentence_exists(document: str, command: str) -> None:
    assert command in ROOT.commands


@pytest.mark.parametrize(("document", "arguments"), sorted({*calls_in_blocks("make"), *commands_in_sentences("make")}))
def test_make_has_the_target(document: str, arguments: str) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    rules = re.findall(r"^([\w./ -]+?)\s*:(?!=)", makefile, re.MULTILINE)
    targets = set(itertools.chain.from_iterable(rule.split() for rule in rules))
    asked = {word for word in arguments.split() if "=" not in word and not word.startswith("-")}
    assert asked <= targets


def test_extras_and_targets_that_are_named_exist() -> None:
    extras = set(PYPROJECT["project"]["optional-dependencies"])
    sources = [path for folder in SOURCE_FOLDERS for path in (REPOSITORY / folder).rglob("*.py")]
    named = [
        name
        for path in (*DOCUMENTS, *sources)
        for names in re.findall(r"(?:ccnet-hsi|any\.whl\)|install \"\.)\[([\w,-]+)\]", path.read_text(encoding="utf-8"))
        for name in names.split(",")
    ]
    assert {"cpu", "gpu", "cli", "jetson"} <= set(named) <= extras
    targets = [name for path in DOCUMENTS for name in re.findall(r"TARGET=([\w-]+)", path.read_text(encoding="utf-8"))]
    assert "gpu-cu12" in targets and set(targets) <= set(get_args(Target))


@pytest.mark.parametrize(("document", "target"), sorted(set(links())))
def test_link_leads_somewhere(document: str, target: str) -> None:
    file, _, anchor = target.partition("#")
    path = (REPOSITORY / document).parent / file if file else REPOSITORY / document
    assert path.exists()
    if anchor:
        assert anchor in anchors(path)


@pytest.mark.parametrize(("document", "path"), sorted(set(file_names())))
def test_file_named_in_a_sentence_exists(document: str, path: str) -> None:
    assert (REPOSITORY / path).exists()


@pytest.mark.parametrize("path", sorted(set(TREE)))
def test_every_path_of_the_tree_exists(path: str) -> None:
    assert (REPOSITORY / path).exists()


def test_tree_names_every_source_file() -> None:
    files = (path for folder in SOURCE_FOLDERS for path in (REPOSITORY / folder).rglob("*"))  # does not enter links
    sources = {path.relative_to(REPOSITORY).as_posix() for path in files if path.suffix in (".py", ".c", ".h")}
    missing = {name for name in sources - set(TREE) if not name.endswith("__init__.py")}
    assert not missing, f"add to docs/architecture.md: {sorted(missing)}"


@pytest.mark.parametrize("page", sorted(REPOSITORY.glob("docs/api/*.md")), ids=lambda page: page.stem)
def test_module_of_the_reference_exists(page: Path) -> None:
    modules = re.findall(r"^\.\. automodule:: (\S+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert modules or page.stem == "index"
    assert all(find_spec(module) for module in modules)


def test_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").split()) <= 900


@pytest.mark.parametrize("name", sorted(ROOT.commands))
def test_help_explains_a_command_and_its_options(name: str) -> None:
    result = CliRunner().invoke(APP, [name, "--help"])
    assert result.exit_code == 0
    assert str(ROOT.commands[name].help).split(".")[0].split()[0] in result.output
    assert len(str(ROOT.commands[name].help).split()) > 3
    unexplained = [parameter.name for parameter in ROOT.commands[name].params if not parameter.help]
    assert not unexplained


@pytest.mark.parametrize("name", [".ci/run", "Makefile"])
def test_named_test_files_exist(name: str) -> None:
    """A moved test would end the run of all others."""
    named = set(re.findall(r"\btests/[\w/]+\.py", (REPOSITORY / name).read_text(encoding="utf-8")))
    assert all((REPOSITORY / path).is_file() for path in named), named
    assert named or name == "Makefile"
