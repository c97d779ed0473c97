"""The page of a stream: it shows the last whole cube, on a real port."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.apps.view.live import LivePreview
from ccnet.runtime.apps.view.scene import Scene
from ccnet.runtime.apps.view.server import ViewServer
from tests.runtime.io.cube_files import cube_of

from .scenes import shown


@pytest.fixture
def preview() -> Iterator[LivePreview]:
    preview = LivePreview(0)
    yield preview
    preview.close()


def ask(url: str, path: str) -> Any:
    with urllib.request.urlopen(url + path, timeout=30) as answer:  # noqa: S310 - a server of this test
        return json.loads(answer.read())


def test_last_whole_cube_is_shown(preview: LivePreview) -> None:
    assert ask(preview.url, "api/scene")["cubes"] == []
    serials = set()
    for seed, name in enumerate(("one.png", None)):
        with preview.cube(name, 20, 24, {"frame id": "7"}) as writer:
            for top in (0, 10):
                writer.write(top, cube_of(seed=seed)[:, top : top + 10])
        scene = ask(preview.url, "api/scene")
        assert scene["live"] and [cube["name"] for cube in scene["cubes"]] == [name or "frame 7"]
        serials.add(scene["cubes"][0]["serial"])
        spectrum = ask(preview.url, "api/spectra?cubes=0&x=3&y=4&radius=0")["spectra"][0]
        np.testing.assert_allclose(spectrum, cube_of(seed=seed)[:, 4, 3])
    assert len(serials) == 2  # the page sees by the serial that the cube is another
    with pytest.raises(RuntimeError), preview.cube(None, 20, 24, {}):
        raise RuntimeError
    assert ask(preview.url, "api/scene")["cubes"][0]["name"] == "frame 7"


def test_large_cube_is_thinned(preview: LivePreview, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccnet.runtime.viz.render.LONGEST_SIDE", 8)
    with preview.cube(None, 20, 24, {}) as writer:
        writer.write(0, cube_of())
    cube = ask(preview.url, "api/scene")["cubes"][0]
    assert (cube["width"], cube["height"]) == (8, 7)
    assert cube["note"] == "24×20 px, 1 pixel in 9 is shown"


def test_taken_port_is_one_line(preview: LivePreview) -> None:
    port = int(preview.url.rstrip("/").rpartition(":")[2])
    with pytest.raises(CCNetError, match=rf"127\.0\.0\.1 port {port}: cannot be bound .* choose another --port"):
        LivePreview(port)
    preview.close()
    LivePreview(port).close()  # the port is free again


def test_address_for_other_machines_has_a_token() -> None:
    with ViewServer(Scene([shown(cube_of())]), 0, "0.0.0.0") as server:  # noqa: S104 - with a token
        server.start()
        address, _, token = server.url.partition("?token=")
        assert len(token) >= 32
        port = address.rstrip("/").rpartition(":")[2]
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask(f"http://127.0.0.1:{port}/", "api/scene")
