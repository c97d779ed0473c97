"""The one line that a user reads when a command fails."""

from __future__ import annotations

import importlib.metadata
import os
import re

from ccnet.contract import CCNetError, install_command
from ccnet.runtime.gpu.out_of_memory import is_out_of_memory

_DISTRIBUTION = "ccnet-hsi"


def explain(error: Exception) -> str:
    """Return what went wrong and, where it is known, what to do."""
    if is_out_of_memory(error) and not isinstance(error, CCNetError):
        return "out of memory: use a smaller frame or tile, or in training a smaller --batch or --patch"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    if isinstance(error, ModuleNotFoundError) and error.name and (extra := _extra(error.name)):
        return f"{error.name} is not installed: {install_command(extra)}"
    return str(error) or type(error).__name__


def _extra(module: str) -> str | None:
    """Return the extra that installs a module, from the metadata of the installed package."""
    package = re.escape(module.partition(".")[0].replace("_", "-"))
    requirements = importlib.metadata.requires(_DISTRIBUTION) or []
    matches = (re.match(rf"{package}(?![\w-]).*;\s*extra == [\"']([\w-]+)", line) for line in requirements)
    return next((match[1] for match in matches if match), None)
