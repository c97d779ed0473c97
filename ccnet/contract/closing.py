"""Objects that are closed at the end of a ``with`` block."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, TypeVar

_Self = TypeVar("_Self")


class _HasClose(Protocol):
    def close(self) -> None: ...


class Closeable:
    """A base of classes with a method ``close``: a ``with`` block calls it at its end."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self: _HasClose, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
