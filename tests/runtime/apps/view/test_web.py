"""The server answers the page with its files, tiles, spectra, ranges and errors, and refuses wrong requests."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from importlib import resources
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ccnet import metrics
from ccnet.runtime.apps.view.scene import Scene, ShownCube
from ccnet.runtime.io.formats.mapped_cube import Selection
from ccnet.runtime.viz.render import render

from .scenes import HEIGHT, WIDTH, client, scene

SCENE = scene()
CUBE, TRUTH = (SCENE.cubes[at].cube for at in (0, 1))
TILE = {"level": 0, "column": 0, "row": 0}


def whole(of: Any) -> Any:
    return of.read(range(of.shape[0]), Selection(0, of.shape[1]), Selection(0, of.shape[2]))


@pytest.fixture
def get() -> Any:
    http = client(SCENE)
    return lambda path, **query: http.get(path, params=query)


def image(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGBA"))


def test_page_and_all_that_it_names_are_served(get: Any) -> None:
    page = get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    files = resources.files("ccnet.runtime.apps.view") / "static"
    for name in sorted(file.name for file in files.iterdir() if file.name != "index.html"):
        answer = get(f"/{name}")
        assert answer.content == (files / name).read_bytes()
    scripts = "\n".join(get(f"/{file.name}").text for file in files.iterdir() if file.name.endswith(".js"))
    for named in re.findall(r'(?:href|src)="([\w.]+)"', page.text) + re.findall(r'from "\./([\w.]+)"', scripts):
        assert get(f"/{named}").status_code == 200
    assert not re.findall(r"https?://(?!www\.w3\.org)", page.text + scripts)  # nothing from elsewhere
    ids = set(re.findall(r'id="([\w-]+)"', page.text))
    made = {"band", "exposure"}
    assert set(re.findall(r'(?:byId|getElementById)\("([\w-]+)"\)', scripts)) <= ids | made


def test_every_answer_has_the_protecting_headers(get: Any) -> None:
    for path in ("/", "/api/scene", "/nothing"):
        headers = get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"


def test_scene_describes_the_cubes(get: Any) -> None:
    answer = get("/api/scene").json()
    first, second, small, few = answer["cubes"]
    assert (first["name"], first["width"], first["height"], first["levels"]) == ("a.hdr", WIDTH, HEIGHT, 2)
    assert first["wavelengths"][0] == 400 and first["natural"] and first["frame"] and first["residual"]
    assert first["comparable"] == [1] and second["comparable"] == [0]
    assert small["comparable"] == [] and not small["frame"]
    assert len(few["wavelengths"]) == 4 and not few["natural"]
    assert not answer["live"]


def test_natural_colours_are_those_of_pictures(get: Any) -> None:
    tile = image(get("/api/tile", kind="natural", level=0, column=0, row=0))
    np.testing.assert_array_equal(tile[..., :3], render(whole(CUBE))[:256, :256])
    assert (tile[..., 3] == 255).all()


def test_tiles_cover_the_cube_at_every_level(get: Any) -> None:
    query = {"kind": "band", "bands": "7", "palette": "grey"}
    rows = [
        np.hstack([image(get("/api/tile", level=0, column=column, row=row, **query)) for column in (0, 1)])
        for row in (0, 1)
    ]
    grey = np.vstack(rows)[..., 0]
    assert grey.shape == (HEIGHT, WIDTH)
    np.testing.assert_allclose(grey / 255, whole(CUBE)[7], atol=0.5 / 254 + 0.5 / 255)  # rounded twice
    np.testing.assert_array_equal(image(get("/api/tile", level=1, column=0, row=0, **query))[..., 0], grey[::2, ::2])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"kind": "ratio", "bands": "25,15"}, lambda a, b: a[25] / a[15]),
        ({"kind": "index", "bands": "25,15"}, lambda a, b: (a[25] - a[15]) / (a[25] + a[15])),
        ({"kind": "signed", "bands": "9", "other": 1}, lambda a, b: a[9] - b[9]),
        ({"kind": "absolute", "bands": "9", "other": 1}, lambda a, b: abs(a[9] - b[9])),
        ({"kind": "mrae", "other": 1}, lambda a, b: np.mean(abs(a - b) / (b + 0.02), axis=0)),
        ({"kind": "rmse", "other": 1}, lambda a, b: np.sqrt(np.mean((a - b) ** 2, axis=0))),
        (
            {"kind": "angle", "other": 1},
            lambda a, b: np.degrees(
                np.arccos(np.sum(a * b, 0) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0))
            ),
        ),
    ],
    ids=lambda value: value.get("kind") if isinstance(value, dict) else "",
)
def test_numbers_are_those_of_their_formula(get: Any, query: dict[str, Any], expected: Any) -> None:
    """The grey of a tile between the limits that the page asks for first is the number."""
    limits = get("/api/range", **query).json()
    tile = image(get("/api/tile", palette="grey", **limits, **query, **TILE))
    values = expected(whole(CUBE).astype(float), whole(TRUTH).astype(float))[:256, :256]
    scaled = np.clip((values - limits["low"]) / (limits["high"] - limits["low"]), 0, 1)
    np.testing.assert_allclose(tile[..., 0] / 255, scaled, atol=1.5 / 255)


def test_residual_is_zero_for_a_cube_that_explains_its_frame(get: Any) -> None:
    tile = image(get("/api/tile", kind="residual", palette="grey", low=0, high=0.01, **TILE))
    assert tile[..., 0].max() <= 1 and (tile[..., 3] == 255).all()
    frame = image(get("/api/tile", kind="frame", **TILE))
    np.testing.assert_array_equal(frame[..., :3], SCENE.cubes[0].frame.picture[:256, :256])  # type: ignore[union-attr]


def test_spectra_of_several_cubes_at_a_pixel(get: Any) -> None:
    answer = get("/api/spectra", cubes="0,1,2,3", x=17, y=18, radius=0).json()
    first, second, small, few = answer["spectra"]
    np.testing.assert_allclose(first, whole(CUBE)[:, 18, 17])
    np.testing.assert_allclose(second, whole(TRUTH)[:, 18, 17])
    assert small is None and len(few) == 4
    np.testing.assert_allclose(answer["errors"][0], 0.1 * whole(CUBE)[:, 18, 17], rtol=1e-5)
    assert answer["errors"][1:] == [None, None, None]
    corner = get("/api/spectra", cubes="0", x=0, y=0, radius=1).json()["spectra"][0]
    np.testing.assert_allclose(corner, whole(CUBE)[:, :2, :2].mean(axis=(1, 2)), rtol=1e-5)


def test_errors_are_those_of_the_metrics(get: Any) -> None:
    answer = get("/api/errors", cube=0, other=1).json()
    a, b = whole(CUBE), whole(TRUTH)
    assert answer["step"] == 1
    assert answer["mrae"] == pytest.approx(metrics.mrae(b, a), rel=1e-5)
    assert answer["rmse"] == pytest.approx(metrics.rmse(b, a), rel=1e-5)
    assert answer["psnr"] == pytest.approx(metrics.psnr(b, a), rel=1e-5)
    assert answer["angle"] == pytest.approx(metrics.sam(b, a), rel=1e-4)
    np.testing.assert_allclose(answer["bands"]["mrae"], metrics.band_mrae(b, a), rtol=1e-5)
    np.testing.assert_allclose(answer["bands"]["rmse"], metrics.band_rmse(b, a), rtol=1e-5)
    assert get("/api/errors", cube=0, other=0).json()["psnr"] is None  # JSON has no infinity


REFUSED = {
    "unknown kind": ("/api/tile", {"kind": "../etc/passwd", **TILE}, "expected one of"),
    "path as cube": ("/api/tile", {"cube": "../../etc/passwd", **TILE}, "whole number"),
    "path in spectra": ("/api/spectra", {"cubes": "/etc/passwd", "x": 0, "y": 0, "radius": 0}, "whole number"),
    "no such cube": ("/api/tile", {"cube": 9, **TILE}, "expected 0 to 3"),
    "no such tile": ("/api/tile", {"level": 0, "column": 2, "row": 0}, "outside this cube"),
    "no such level": ("/api/tile", {"level": 20, "column": 0, "row": 0}, "outside this cube"),
    "huge number": ("/api/tile", {"level": 0, "column": 10**30, "row": 0}, "whole number"),
    "negative": ("/api/tile", {"level": -1, "column": 0, "row": 0}, "whole number"),
    "no level": ("/api/tile", {"column": 0, "row": 0}, "whole number"),
    "band outside": ("/api/tile", {"kind": "band", "bands": "31", **TILE}, "expected 0 to 30"),
    "too few bands": ("/api/tile", {"kind": "ratio", "bands": "3", **TILE}, "expected 2"),
    "not a number": ("/api/tile", {"kind": "band", "bands": "3", "low": "nan", **TILE}, "expected a number"),
    "palette": ("/api/tile", {"kind": "band", "bands": "3", "palette": "jet", **TILE}, "viridis"),
    "other size": ("/api/tile", {"kind": "mrae", "other": 2, **TILE}, "differ in size"),
    "other bands": ("/api/errors", {"cube": 0, "other": 3}, "differ in size or bands"),
    "no frame": ("/api/tile", {"kind": "frame", "cube": 1, **TILE}, "its frame is not open"),
    "no camera": ("/api/tile", {"kind": "residual", "cube": 1, **TILE}, "unknown"),
    "range of a picture": ("/api/range", {"kind": "natural"}, "map of numbers"),
    "dark picture": ("/api/tile", {"gain": 0, **TILE}, "more than 0"),
    "negative gain": ("/api/tile", {"kind": "frame", "gain": -2, **TILE}, "more than 0"),
    "natural colours of four bands": ("/api/tile", {"cube": 3, **TILE}, "too few bands of visible light"),
    "pixel outside": ("/api/spectra", {"cubes": "0", "x": WIDTH, "y": 0, "radius": 0}, "outside"),
    "wide mean": ("/api/spectra", {"cubes": "0", "x": 0, "y": 0, "radius": 10**6}, "expected 0 to 50"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_request_gets_one_line(get: Any, name: str) -> None:
    path, query, words = REFUSED[name]
    answer = get(path, **query)
    assert answer.status_code == 400
    message = json.loads(answer.content)["error"]
    assert words in message and "\n" not in message


def test_file_that_can_no_longer_be_read_gets_one_line() -> None:
    def fail(*_: object) -> Any:
        raise OSError("a.nc: became shorter\n while it was open")

    http = client(Scene([ShownCube(name="a.nc", cube=replace(CUBE, read=fail))]))
    spectra = {"cubes": "0", "x": 0, "y": 0, "radius": 0}
    for path, query in (("tile", TILE), ("spectra", spectra), ("range", {"kind": "band", "bands": "3"})):
        answer = http.get(f"/api/{path}", params=query)
        assert answer.status_code == 500
        assert "a.nc: became shorter while it was open" in answer.json()["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/static/index.html",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/web.py",
        "/api/",
        "/a.hdr",
    ],
)
def test_no_path_leads_to_a_file(get: Any, path: str) -> None:
    assert get(path).status_code == 404
