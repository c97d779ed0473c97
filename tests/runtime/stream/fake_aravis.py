"""Aravis for tests, with its fake camera; a test module that needs it is skipped where it is not installed."""

from __future__ import annotations

from typing import Any

import pytest

REASON = "needs Debian's gir1.2-aravis-0.8 and python3-gi, and that gi on Python's path (see .ci/run)"


def require_aravis() -> Any:
    """Return the module Aravis, or skip the test module that is being imported."""
    gi = pytest.importorskip("gi", reason=REASON)
    try:
        gi.require_version("Aravis", "0.8")
        from gi.repository import Aravis
    except (ValueError, ImportError):
        pytest.skip(REASON, allow_module_level=True)
    return Aravis
