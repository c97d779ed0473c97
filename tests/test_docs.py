"""What the documents say can be typed: commands, options, make's targets and the files of the tree."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ccnet.runtime.cli import main as cli

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    path
    for path in (REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(REPOSITORY.glob("docs/*.md")))
    if path.is_file()
]
APP = cli._app()[0]
ROOT: Any = typer.main.get_command(APP)

Line = tuple[str, str]
"""Document's name, what it says."""


def blocks(path: Path) -> list[str]:
    """The fenced blocks of a document, without their fences."""
    text = path.read_text(encoding="utf-8")
    return re.findall(r"^ *```[^\n]*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)


def spans(path: Path) -> list[str]:
    """The code inside a document's sentences."""
    text = path.read_text(encoding="utf-8")
    return re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL))


def typed(program: str) -> Iterator[Line]:
    """Each call of a program in the blocks, as its arguments in one line."""
    for path in DOCUMENTS:
        for block in blocks(path):
            for line in block.replace("\\\n", " ").splitlines():
                for call in re.split(r"&&|\||;|>", re.sub(r"(^|\s)#.*", "", line)):
                    words = call.strip().removeprefix("$ ").split(maxsplit=1)
                    if words and words[0].rpartition("/")[2] == program:
                        yield path.name, words[1] if words[1:] else ""


def in_sentences(program: str) -> Iterator[Line]:
    """Each word that follows the program's name in code inside a sentence."""
    for path in DOCUMENTS:
        for span in spans(path):
            if match := re.match(rf"{program} ([a-z][\w-]*)", span):
                yield path.name, match[1]


def tree(block: str) -> list[str]:
    """The paths of a file tree: a line each, a path and what it is for; indented below its folder."""
    paths: list[str] = []
    folders: list[tuple[int, str]] = []
    for line in filter(str.strip, block.splitlines()):
        match = re.match(r"[\s│├└─|`]*", line)
        column, name = match.end() if match else 0, line.lstrip(" │├└─|`\t").split()[0]
        while folders and folders[-1][0] >= column:
            folders.pop()
        paths.append((folders[-1][1] if folders else "") + name)
        if name.endswith("/"):
            folders.append((column, paths[-1]))
    return paths


TREES = [tree(block) for block in blocks(REPOSITORY / "docs/architecture.md")]


def test_the_readme_shows_the_commands_and_the_tree() -> None:
    """The checks below would pass on a document that says nothing."""
    said = {(name, arguments.split()[0]) for name, arguments in typed("ccnet") if arguments}
    assert ("README.md", "reconstruct") in said
    assert {("README.md", "engine"), ("README.md", "test")} <= {*typed("make"), *in_sentences("make")}
    assert TREES


@pytest.mark.parametrize(("document", "arguments"), sorted(set(typed("ccnet"))))
def test_a_command_in_a_block_is_one_that_the_command_line_takes(document: str, arguments: str) -> None:
    """By the real parser, which knows every option, choice and required argument; nothing is run."""
    try:
        context = ROOT.make_context("ccnet", shlex.split(arguments))
        name, command, rest = ROOT.resolve_command(context, [*context._protected_args, *context.args])
        command.make_context(name, rest, parent=context)
    except typer.Exit as exit:
        assert exit.exit_code == 0  # --help, --version


@pytest.mark.parametrize(("document", "command"), sorted(set(in_sentences("ccnet"))))
def test_a_command_in_a_sentence_exists(document: str, command: str) -> None:
    assert command in ROOT.commands


@pytest.mark.parametrize(("document", "arguments"), sorted({*typed("make"), *in_sentences("make")}))
def test_make_has_the_target(document: str, arguments: str) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    rules = re.findall(r"^([\w./ -]+?)\s*:(?!=)", makefile, re.MULTILINE)
    targets = set(itertools.chain.from_iterable(rule.split() for rule in rules))
    asked = {word for word in arguments.split() if "=" not in word and not word.startswith("-")}
    assert asked <= targets


@pytest.mark.parametrize("path", sorted(set(itertools.chain.from_iterable(TREES))))
def test_the_tree_is_the_repository(path: str) -> None:
    assert (REPOSITORY / path).exists()


@pytest.mark.parametrize("name", sorted(ROOT.commands))
def test_help_explains_a_command_and_all_it_takes(name: str) -> None:
    result = CliRunner().invoke(APP, [name, "--help"])
    assert result.exit_code == 0
    assert str(ROOT.commands[name].help).split(".")[0].split()[0] in result.output
    assert len(str(ROOT.commands[name].help).split()) > 3
    unexplained = [parameter.name for parameter in ROOT.commands[name].params if not parameter.help]
    assert not unexplained
