"""Damage to files, and the errors that must follow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ccnet.contract import CCNetError
from ccnet.data.camera import Array

MakeCube = Callable[..., Array]
Write = Callable[..., Path]
SHARES = pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 0.9, 0.99])


def refusal(read: Callable[[Path], Array], path: Path, words: str, named: Path | None = None) -> None:
    with pytest.raises(CCNetError, match=words) as caught:
        read(path)
    assert str(caught.value).startswith(f"{named or path}")
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


def cut(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
