"""The arena that all sessions with compiled operators share."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ccnet.runtime.backends import arena


def test_threads_that_ask_at_the_same_time_get_the_same_arena(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first registration waits for a second, which ONNX Runtime would refuse."""
    second, registrations = threading.Event(), []

    class Arena:
        """An arena that can be registered once."""

        def __init__(self, _: Any) -> None:
            registrations.append(self)
            if len(registrations) > 1:
                second.set()
                raise RuntimeError("an arena is registered already")
            second.wait(0.1)

    monkeypatch.setattr(arena, "SharedArena", Arena)
    ort = object()
    with ThreadPoolExecutor(2) as pool:
        found = set(pool.map(arena.shared_arena, (ort, ort)))
    assert found == set(registrations) and len(registrations) == 1
