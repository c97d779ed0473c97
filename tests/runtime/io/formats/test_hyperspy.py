"""The hand-over to HyperSpy that docs/formats.md shows, where HyperSpy is installed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ccnet.contract import BANDS_NM
from ccnet.runtime import open_cube

DOCUMENT = Path(__file__).resolve().parents[4] / "docs/formats.md"


def test_hyperspy_gets_the_cube_with_its_wavelengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hs = pytest.importorskip("hyperspy.api", reason="HyperSpy is not installed: pip install hyperspy")
    cube = np.random.default_rng(0).random((31, 20, 24), np.float32)
    monkeypatch.chdir(tmp_path)
    with open_cube(Path("photo.hdr"), 20, 24, {}) as writer:
        writer.write(0, cube)
    blocks = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (code,) = (block for block in blocks if "hyperspy" in block)
    exec(compile(code, str(DOCUMENT), "exec"), {})  # noqa: S102
    signal = hs.load("photo.hspy")
    np.testing.assert_array_equal(signal.data.transpose(2, 0, 1), cube)
    (axis,) = signal.axes_manager.signal_axes
    assert (axis.name, axis.units, axis.axis.tolist()) == ("wavelength", "nm", list(BANDS_NM))
    assert signal.axes_manager.navigation_shape == (24, 20)
