"""The web application: the page's files, and what its scripts ask for."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError
from ccnet.metrics import MRAE_OFFSET
from ccnet.runtime.io.files import optional_module

from .layers import Layer, comparable_cubes, draw_tile, indices, natural_colours, whole
from .palettes import MISSING, PALETTES, colour_table
from .scene import TILE_PX, Scene, ShownCube
from .statistics import errors, spectrum, value_range

_PAGE = {
    "": ("index.html", "text/html; charset=utf-8"),
    **{
        name: (name, "text/javascript; charset=utf-8")
        for name in ("main.js", "api.js", "chart.js", "controls.js", "pane.js", "spectra.js")
    },
    "view.css": ("view.css", "text/css; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Path → file of the page and its type; there are no others."""

_MOST_RADIUS, _MOST_SPECTRA = 50, 8


def build_app(scene: Scene) -> Any:
    """Return the ASGI application of a scene, without its guard; CCNetError if starlette is not installed."""
    routing = optional_module("starlette.routing", "view")
    answers: dict[str, Callable[[Scene, Any], Any]] = {
        "/api/scene": lambda scene, _: describe_scene(scene),
        "/api/range": lambda scene, request: value_range(scene, Layer.parse(request.query_params)),
        "/api/errors": lambda scene, request: _errors(scene, request.query_params),
        "/api/spectra": lambda scene, request: _spectra(scene, request.query_params),
    }
    routes = [routing.Route(f"/{path}", _page_file(*file), methods=["GET"]) for path, file in _PAGE.items()]
    routes += [routing.Route(path, _json(scene, answer), methods=["GET"]) for path, answer in answers.items()]
    routes.append(routing.Route("/api/tile", _tile(scene), methods=["GET"]))
    return optional_module("starlette.applications", "view").Starlette(routes=routes)


def describe_scene(scene: Scene) -> dict[str, Any]:
    """Return what the page must know of the cubes, as plain values."""
    cubes = scene.cubes
    described = zip(cubes, comparable_cubes(cubes), strict=True)
    return {
        "live": scene.live,
        "status": scene.status,
        "tile": TILE_PX,
        "palettes": PALETTES,
        "mraeOffset": MRAE_OFFSET,
        "cubes": [_describe_cube(shown, others) for shown, others in described],
    }


def _describe_cube(shown: ShownCube, others: list[int]) -> dict[str, Any]:
    _, height, width = shown.cube.shape
    return {
        "serial": shown.serial,
        "name": shown.name,
        "note": shown.note,
        "width": width,
        "height": height,
        "levels": shown.levels,
        "wavelengths": [round(float(nm), 3) for nm in shown.cube.wavelengths],
        "natural": bool(natural_colours(shown).any()),
        "frame": shown.frame is not None,
        "residual": shown.has_residual(),
        "comparable": others,
    }


def _errors(scene: Scene, query: Any) -> dict[str, Any]:
    return errors(scene, whole(query, "cube"), whole(query, "other"))


def _spectra(scene: Scene, query: Any) -> dict[str, Any]:
    """Return spectra and half widths of some cubes at a pixel; null for cubes of another size than the first has."""
    x, y, radius = whole(query, "x"), whole(query, "y"), whole(query, "radius", most=_MOST_RADIUS)
    cubes = [scene.cube(index) for index in indices("cubes", query.get("cubes", ""))[:_MOST_SPECTRA]]
    size = cubes[0].cube.shape[1:] if cubes else None
    answer: dict[str, Any] = {"x": x, "y": y}
    for name, error in (("spectra", False), ("errors", True)):
        fitting = [each if each.cube.shape[1:] == size else None for each in cubes]
        found = [None if each is None else spectrum(each, x, y, radius, error=error) for each in fitting]
        answer[name] = [None if values is None else values.tolist() for values in found]
    return answer


def _refusal(error: CCNetError | OSError) -> Any:
    """Return the answer to a wrong request, 400, or where a cube's file can no longer be read, 500."""
    wrong, line = isinstance(error, CCNetError), " ".join(str(error).split())
    message = line if wrong else f"a cube's file cannot be read ({line}); open it again"
    responses = optional_module("starlette.responses", "view")
    return responses.JSONResponse({"error": message}, status_code=400 if wrong else 500)


def _json(scene: Scene, answer: Callable[[Scene, Any], Any]) -> Callable[[Any], Any]:
    responses = optional_module("starlette.responses", "view")

    def endpoint(request: Any) -> Any:
        try:
            return responses.JSONResponse(_finite(answer(scene, request)), headers={"cache-control": "no-store"})
        except (CCNetError, OSError) as error:
            return _refusal(error)

    return endpoint


def _tile(scene: Scene) -> Callable[[Any], Any]:
    responses = optional_module("starlette.responses", "view")

    def endpoint(request: Any) -> Any:
        query = request.query_params
        try:
            at = [whole(query, name) for name in ("level", "column", "row")]
            layer = Layer.parse(query)
            image = encode_png(draw_tile(scene, layer, *at), layer.palette)
        except (CCNetError, OSError) as error:
            return _refusal(error)
        # The page adds the cube's serial, so that a tile never changes under its address
        headers = {"cache-control": "private, max-age=3600, immutable"}
        return responses.Response(image, media_type="image/png", headers=headers)

    return endpoint


def encode_png(pixels: npt.NDArray[np.uint8], palette: str) -> bytes:
    """Return indices of a palette's colours (h, w), or colours (h, w, 3 or 4), as a PNG."""
    image = optional_module("PIL.Image").fromarray(pixels)
    options: dict[str, Any] = {"compress_level": 1, "compress_type": zlib.Z_HUFFMAN_ONLY}  # half the time of level 1
    if pixels.ndim == 2:
        image = image.convert("P")
        image.putpalette(colour_table(palette))
        options["transparency"] = MISSING
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def _page_file(name: str, media_type: str) -> Callable[[Any], Any]:
    responses = optional_module("starlette.responses", "view")
    content = (resources.files(__package__) / "static" / name).read_bytes()

    def endpoint(_: Any) -> Any:
        return responses.Response(content, headers={"content-type": media_type, "cache-control": "no-cache"})

    return endpoint


def _finite(value: Any) -> Any:
    """Return plain values with null for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
