"""The interface that every backend has."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

from numpy.typing import NDArray


class Backend(Protocol):
    """Runs one graph or engine. Use it in ``with`` or call ``close``, which may be called twice.

    Attributes:
        name: Library, version and device, for reports.
    """

    name: str

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph once; a CCNetError names an input whose dtype or shape is wrong.

        Args:
            feeds: Input name → array.

        Returns:
            Output name → array. The arrays are the caller's to keep.
        """

    def close(self) -> None:
        """Free everything."""

    def __enter__(self) -> Backend: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
