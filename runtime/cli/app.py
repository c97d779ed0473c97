"""The command-line application: the commands of all packages side by side."""

from __future__ import annotations

import importlib.metadata
from typing import Annotated

import typer

from ccnet import __version__
from ccnet.runtime.apps.survey import cli as survey
from ccnet.runtime.apps.triton import cli as serve
from ccnet.runtime.apps.view import cli as view

from . import inspect, plan, reconstruct, stream
from .errors import explain


def build_app() -> tuple[typer.Typer, list[str]]:
    """Return the application, and one line for each package whose commands cannot be loaded here."""
    apps, load_errors = [reconstruct.app, plan.app, inspect.app, stream.app, serve.app, survey.app, view.app], []
    for entry in importlib.metadata.entry_points(group="ccnet.commands"):
        try:
            apps.append(entry.load())
        except ImportError as error:
            load_errors.append(f"the commands of {entry.name} are not here: {explain(error)}")
    app = typer.Typer(
        help="31-band hyperspectral cubes (400-700 nm) from RGB frames, from training to an engine in a camera.",
        epilog="\n\n".join(load_errors) or None,
        callback=_root,
        add_completion=False,
        rich_markup_mode=None,  # rich would read the brackets of an extra's name as markup
        pretty_exceptions_enable=False,
    )
    for each in apps:
        app.registered_commands += each.registered_commands
        app.registered_groups += each.registered_groups
    return app, load_errors


def _print_version(requested: bool) -> None:
    if requested:
        print(f"ccnet {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Accept the options that stand before a command."""
