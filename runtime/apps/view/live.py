"""The page as the live preview of a stream."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ccnet.contract import BANDS_NM
from ccnet.runtime.io.cubes import CubeWriter
from ccnet.runtime.io.formats.mapped_cube import map_array
from ccnet.runtime.viz.render import Thumbnail, thinning_step

from .scene import Scene, ShownCube
from .server import ViewServer


class LivePreview:
    """A sink that shows the stream's last cube on the page, large ones thinned to every n-th pixel."""

    def __init__(self, port: int) -> None:
        """Start the server; CCNetError if the port is taken or a library is not installed."""
        self._scene = Scene([], live=True)
        self._server = ViewServer(self._scene, port)
        self.name, self.url = f"view:{port}", self._server.url
        self._count, self._started = 0, time.monotonic()
        self._server.start()

    @contextmanager
    def cube(self, name: str | None, height: int, width: int, metadata: Mapping[str, str]) -> Iterator[CubeWriter]:
        """Yield the writer of a cube; the page shows it when the block ends without an error."""
        thumbnail = Thumbnail(height, width)
        yield thumbnail
        self._count += 1
        label = Path(name).name if name else f"frame {metadata.get('frame id', self._count - 1)}"
        step = thinning_step(height, width)
        note = "" if step == 1 else f"{width}×{height} px, 1 pixel in {step**2} is shown"
        cube = map_array(thumbnail.cube, np.array(BANDS_NM, np.float64))
        rate = self._count / max(1e-3, time.monotonic() - self._started)
        status = f"{label}, cube {self._count}, {rate:.2g} a second"
        self._scene.show(ShownCube(name=label, cube=cube, note=note), status)

    def close(self) -> None:
        """Stop the server."""
        self._server.close()
