"""Helpers of every file reader: optional libraries and the first look at a file."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

from ccnet.contract import CCNetError


@functools.cache
def optional_module(module: str, extra: str = "cli") -> Any:
    """Import an optional module.

    Args:
        module: The module's name, such as ``matplotlib.figure``.
        extra: The extra of this package that installs it.

    Returns:
        The module.

    Raises:
        CCNetError: It is not installed; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise CCNetError(f'{package} is not installed: pip install "ccnet-hsi[{extra}]"') from error


def read_head(path: Path, expected: str) -> bytes:
    """Read the first 16 bytes of a file.

    Args:
        path: The file.
        expected: What the file should be, for the error message.

    Returns:
        1 to 16 bytes.

    Raises:
        CCNetError: The file is missing, a directory, unreadable or empty.
    """
    try:
        if path.is_dir():
            raise CCNetError(f"{path}: is a directory, expected {expected}")
        if not path.is_file():
            raise CCNetError(f"{path}: no such file, expected {expected}")
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise CCNetError(f"{path}: cannot be read ({error.strerror}), expected {expected}") from error
    if not head:
        raise CCNetError(f"{path}: is empty, expected {expected}")
    return head
