"""Scenes for the tests of the viewer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ccnet.contract import BANDS_NM
from ccnet.metrics.reprojection import reproject
from ccnet.runtime.apps.view.guard import Guard
from ccnet.runtime.apps.view.scene import Scene, ShownCube, ShownFrame
from ccnet.runtime.apps.view.web import build_app
from ccnet.runtime.io.formats.mapped_cube import map_array
from tests.runtime.io.cube_files import cube_of

pytest.importorskip("starlette", reason='starlette is not installed: pip install ".[view]"')
pytest.importorskip("httpx2", reason="httpx2 is not installed")

Array = npt.NDArray[np.float32]
HEIGHT, WIDTH = 300, 270
NM = np.array(BANDS_NM, np.float64)


def response() -> Array:
    """A camera whose channels are means of ten bands each."""
    table = np.zeros((31, 3), np.float32)
    for channel, first in enumerate((20, 10, 0)):
        table[first : first + 10, channel] = 0.1
    return table


def shown(cube: Array, name: str = "cube", **fields: Any) -> ShownCube:
    return ShownCube(name=name, cube=map_array(cube, NM if len(cube) == 31 else NM[: len(cube)]), **fields)


def scene() -> Scene:
    """Two cubes of one size, the first with its frame and its predicted error, a smaller one and one of four bands."""
    cube = 0.2 + 0.6 * cube_of(HEIGHT, WIDTH)
    linear = np.ascontiguousarray(reproject(cube, response()).transpose(1, 2, 0)).astype(np.float32)
    picture = np.rint(255 * np.clip(linear, 0, 1)).astype(np.uint8)
    frame = ShownFrame(picture=picture, linear=linear, response=response())
    truth = cube + np.float32(0.1) * cube_of(HEIGHT, WIDTH, 1)
    small, few = cube_of(20, 24), cube_of(HEIGHT, WIDTH)[:4]
    error = map_array(np.float32(0.1) * cube, NM)
    return Scene(
        [
            shown(cube, "a.hdr", frame=frame, error=error),
            shown(truth, "b.mat"),
            shown(small, "small"),
            shown(few, "four bands"),
        ]
    )


def client(of: Scene, *, token: str | None = None, host: str = "127.0.0.1") -> Any:
    """Return an HTTP client of a scene behind its guard."""
    from starlette.testclient import TestClient

    guard = Guard(build_app(of), names=("localhost", "127.0.0.1", "::1"), token=token, port=8031)
    return TestClient(guard, base_url=f"http://{host}:8031", follow_redirects=False)
