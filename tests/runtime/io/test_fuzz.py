"""Arbitrary input of every kind gives a result or a one-line error: no traceback, no hang, no partial file.

Each test takes CCNET_FUZZ inputs, 100 where that is not set.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, features

from ccnet.contract import CCNetError, Manifest
from ccnet.data.masks import fill_for_camera
from ccnet.data.readers import read_envi_cube
from ccnet.runtime import Projection, open_cube, read_cube, read_frame
from ccnet.runtime.cli import main as cli
from ccnet.runtime.io.arrays import as_frame
from ccnet.runtime.io.mosaic import read_mosaic
from ccnet.runtime.io.sensor import Radiometry
from ccnet.runtime.stream.context_policy import ContextPolicy
from ccnet.runtime.stream.ledger import FrameLedger
from ccnet.runtime.stream.metrics import StreamMetrics
from ccnet.runtime.stream.prometheus import PrometheusExporter
from ccnet.runtime.stream.sinks import open_sink
from ccnet.runtime.stream.sources.parse import parse_source

many = settings(
    max_examples=int(os.environ.get("CCNET_FUZZ", "100")), suppress_health_check=list(HealthCheck), database=None
)


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Check that the block raises nothing but a CCNetError of one line."""
    try:
        yield
    except CCNetError as error:
        assert "\n" not in str(error)
        assert 0 < len(str(error)) < 2000


@contextlib.contextmanager
def inside() -> Iterator[Path]:
    """Enter an empty folder for the block."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        try:
            yield Path(work)
        finally:
            os.chdir(before)


# ---------------------------------------------------------------------------------------------------------------------
# Files


PILLOW = [f"a.{name}" for name in ("webp", "avif") if features.check(name)]
if importlib.util.find_spec("pillow_heif"):
    importlib.import_module("pillow_heif").register_heif_opener()
    PILLOW.append("a.heic")

GEO = [f"cube.{end}" for end, name in (("tif", "rasterio"), ("nc", "h5netcdf")) if importlib.util.find_spec(name)]


def write_envi(folder: Path) -> None:
    """Write a cube as others do: scaled integers, interleaved by pixel, micrometres, a mask of pixels and of bands."""
    values = np.random.default_rng(0).integers(100, 9000, (5, 4, 33)).astype(">u2")
    values[0], values[:, :, 3] = 0, 65000
    values.tofile(folder / "envi.img")
    wavelengths = ", ".join(f"{nm / 1000:g}" for nm in range(390, 720, 10))
    fields = {
        "description": "{a leaf,\n  in two lines}", "samples": 4, "lines": 5, "bands": 33, "header offset": 0,
        "data type": 12, "interleave": "BIP", "byte order": 1, "wavelength units": "Micrometers",
        "wavelength": f"{{{wavelengths}}}", "reflectance scale factor": 10000, "data ignore value": 0,
        "bbl": "{1, 1, 1, 0" + ", 1" * 29 + "}", "data gain values": "{" + ", ".join(33 * ["1"]) + "}",
    }  # fmt: skip
    lines = ["ENVI", *(f"{key} = {value}" for key, value in fields.items()), ""]
    (folder / "envi.hdr").write_bytes("\r\n".join(lines).encode("utf-8-sig"))


def read(path: Path) -> Any:
    """Read a file of the corpus by the function for its kind; values without data become 0."""
    if path.name.startswith("envi"):
        return fill_for_camera(read_envi_cube(path))
    return (read_cube if path.name.startswith("cube") else read_mosaic if "mosaic" in path.name else read_frame)(path)


def corpus() -> dict[str, dict[str, bytes]]:
    """Return name → the bytes of a valid file and of the files that belong to it."""
    pixels = np.random.default_rng(0).integers(0, 256, (18, 20, 3), np.uint8)
    found: dict[str, dict[str, bytes]] = {}
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        for name, frame in (
            ("a.png", pixels),
            ("a.jpg", pixels),
            ("a.bmp", pixels),
            ("a.tif", pixels.astype(np.uint16) * 257),
        ):
            assert cv2.imwrite(str(folder / name), frame)
        np.save(folder / "frame.npy", pixels)
        for name in PILLOW:
            Image.fromarray(pixels).save(folder / name, quality=80)
        mosaic = pixels[..., 0].astype(np.uint16)
        assert cv2.imwrite(str(folder / "mosaic.png"), mosaic) and cv2.imwrite(str(folder / "mosaic.tif"), mosaic)
        np.save(folder / "mosaic.npy", mosaic)
        write_envi(folder)
        for name in ("cube.hdr", "cube.npy", "cube.mat", *GEO):
            with open_cube(folder / name, 5, 4) as writer:
                writer.write(0, np.ones((31, 5, 4), np.float32))
        for path in folder.iterdir():
            if path.suffix != ".img":
                beside = [path, path.with_suffix(".img")] if path.suffix == ".hdr" else [path]
                found[path.name] = {one.name: one.read_bytes() for one in beside}
    return found


CORPUS = corpus()
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 6), st.binary(max_size=6)),  # position, bytes removed, bytes inserted
    min_size=1,
    max_size=5,
)


def mutated(data: bytes, edits: list[tuple[float, int, bytes]], cut: float) -> bytes:
    for where, gone, come in edits:
        at = int(where * len(data))
        data = data[:at] + come + data[at + gone :]
    return data[: int(cut * len(data))]


@many
@given(st.sampled_from(sorted(CORPUS)), EDITS, st.sampled_from([1.0, 1.0, 1.0, 0.9, 0.5, 0.01]), st.booleans())
def test_damaged_files_are_read_or_one_line(
    name: str, edits: list[tuple[float, int, bytes]], cut: float, beside: bool
) -> None:
    with tempfile.TemporaryDirectory() as work:
        for number, (file, data) in enumerate(CORPUS[name].items()):
            hit = number == (len(CORPUS[name]) - 1 if beside else 0)
            (Path(work) / file).write_bytes(mutated(data, edits, cut) if hit else data)
        with one_line():
            assert np.isfinite(read(Path(work) / name)).all()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
RADIOMETRY = st.fixed_dictionaries(
    {},
    optional={
        "bits": st.sampled_from([8, 10, 12, 16, 12.0, True]) | VALUES,
        "bayer": st.sampled_from(["RGGB", "rggb", None]) | VALUES,
        "black": st.lists(st.floats() | st.integers(-9, 300), min_size=3, max_size=3) | VALUES,
        "gains": st.lists(st.floats() | st.integers(-9, 9), min_size=3, max_size=3) | VALUES,
        "transfer": st.sampled_from(["linear", "srgb", 2.2]) | VALUES,
        "shading": VALUES,
    },
)


@many
@given(RADIOMETRY | VALUES, arrays.arrays(st.sampled_from(["u1", "u2"]), arrays.array_shapes(min_dims=2, max_dims=3)))
def test_arbitrary_radiometry_is_applied_or_one_line(fields: Any, raw: Any) -> None:
    with tempfile.TemporaryDirectory() as work, one_line():
        (Path(work) / "camera.json").write_text(json.dumps(fields))
        frame = Radiometry.read(Path(work) / "camera.json")(raw)
        assert frame.min() >= 0 and frame.max() <= 1


MANIFEST = json.loads(
    Manifest(config={}, weights_sha256="ab", context_size=3, input="uint8", tools={}, halo=16).to_json()
)


@many
@given(st.dictionaries(st.sampled_from(sorted(MANIFEST)) | st.text(max_size=8), VALUES, max_size=4) | st.binary())
def test_arbitrary_manifests_are_read_or_one_line(changes: Any) -> None:
    data = changes if isinstance(changes, bytes) else json.dumps({**MANIFEST, **changes})
    with one_line():
        Manifest.from_json(data)


# ---------------------------------------------------------------------------------------------------------------------
# Words


WORDS = st.text(st.characters(exclude_characters="\0\n\r"), max_size=12) | st.sampled_from(
    ["-", "1x1", "999999999x9", "every:1", "zmq:", "zmq:tcp://", ".zarr", "a.hdr"]
)


@many
@given(WORDS, st.none() | WORDS)
def test_arbitrary_names_of_sources_and_sinks_are_accepted_or_one_line(text: str, size: str | None) -> None:
    with inside():
        for name in (text, text.replace("/", "")):  # without a slash, so that nothing outside the folder is created
            with one_line():
                parse_source(name, size)
            with one_line():
                ContextPolicy(name)
        with one_line():
            open_sink(text.replace("/", "")).close()
        with one_line():
            PrometheusExporter(StreamMetrics(FrameLedger()), text.replace("/", "")).close()


def call(arguments: list[str]) -> tuple[int, str]:
    """Run the command line and return its exit code and standard error."""
    said = io.StringIO()
    argv, sys.argv = sys.argv, ["ccnet", *arguments]
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            cli.main()
    except SystemExit as end:
        return int(end.code or 0), said.getvalue()
    finally:
        sys.argv = argv
    raise AssertionError("the command line returned")


OPTIONS = st.sampled_from(
    ["--sink", "--artifacts", "--size", "--context", "--policy", "--queue", "--frames", "--metrics", "--space", "-o"]
)
OPTIONS |= st.sampled_from(
    ["--window", "--radiometry", "--format", "--backend", "--precision", "stream", "photo.png", "cubes", "0"]
)


@many
@given(
    st.sampled_from(["stream", "reconstruct", "inspect", ""]),
    st.lists(OPTIONS | st.text(st.characters(exclude_characters="/\0"), max_size=6), max_size=8),
)
def test_arbitrary_command_lines_succeed_or_print_one_line(command: str, arguments: list[str]) -> None:
    with inside() as work:
        cv2.imwrite("photo.png", np.zeros((20, 20, 3), np.uint8))
        code, said = call([*([command] if command else []), *arguments])
        assert code in (0, 2)
        if code:
            assert said.startswith("ccnet: ") and said.count("\n") == 1, said
        assert not [path for path in work.rglob("*") if "partial" in path.name]


# ---------------------------------------------------------------------------------------------------------------------
# Python


@many
@given(VALUES | arrays.arrays(arrays.scalar_dtypes(), arrays.array_shapes(min_side=0)))
def test_arbitrary_values_as_frame_or_projection_are_one_line(value: Any) -> None:
    with one_line():
        as_frame(value)
    with one_line():
        Projection.linear(value)


def test_files_of_the_corpus_are_readable() -> None:
    """If the files were invalid, the tests above would test only the header checks."""
    with tempfile.TemporaryDirectory() as work:
        for name, files in CORPUS.items():
            for file, data in files.items():
                (Path(work) / file).write_bytes(data)
            assert read(Path(work) / name).size
    assert len(CORPUS) == 12 + len(GEO) + len(PILLOW)
