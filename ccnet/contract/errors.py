"""The error of every wrong input, and context managers that turn other errors into it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


class CCNetError(ValueError):
    """Something the user gave does not fit; the message is one line: what came, what was expected, what to do."""


@contextlib.contextmanager
def prefix_errors(path: Path) -> Iterator[None]:
    """Errors of a file's content begin with its path."""
    try:
        yield
    except CCNetError as error:
        raise CCNetError(f"{path}: {error}") from error


@contextlib.contextmanager
def decode_errors_as(path: Path, expected: str) -> Iterator[None]:
    """Any exception becomes a CCNetError: on hostile bytes, decoders raise nearly every type there is."""
    try:
        yield
    except CCNetError:
        raise
    except Exception as error:
        why = " ".join((getattr(error, "strerror", None) or str(error)).split())[:200] or type(error).__name__
        raise CCNetError(f"{path}: damaged, missing, truncated or unsupported ({why}), expected {expected}") from error
