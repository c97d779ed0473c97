"""The commands ``ccnet export``, ``build``, ``check``, ``bundle``, ``bench`` and ``bench-train``."""

import typer

from . import bench, build, bundle, check, export

app = typer.Typer()
for _module in (export, build, check, bundle, bench):
    app.registered_commands += _module.app.registered_commands
