"""The commands ``ccnet export``, ``build``, ``check``, ``bundle``, ``bench`` and ``bench-train``."""

import typer

from . import bench, build, bundle, check, export

app = typer.Typer()
app.command("export")(export.export)
app.command("build")(build.build)
app.command("check")(check.check)
app.command("bundle")(bundle.bundle)
app.command("bench")(bench.bench)
app.command("bench-train")(bench.bench_train)
