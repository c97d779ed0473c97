"""``ccnet inspect``: the content of files and folders, and one line for a file that it cannot describe."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ccnet.contract import BANDS_NM
from ccnet.runtime import open_cube
from ccnet.runtime.io.formats.envi import write_envi_layers
from ccnet.runtime.io.formats.geotiff import write_layers

Ccnet = Callable[..., Any]


def test_inspect_describes_an_artifact_folder(work: Path, ccnet: Ccnet, truncate: Any) -> None:
    result = ccnet("inspect", "build/ccnet")
    assert result.code == 0
    rows = [line.split() for line in result.out.splitlines()]
    assert ["encode.onnx", "encode", "onnx", "fp32", "0.00", "intact"] in rows
    assert ["halo", "16", "px"] in rows and ["width", "32"] in rows and ["ccnet", "0"] in rows
    truncate(work / "build/ccnet/encode.onnx")
    (work / "build/ccnet/decode.onnx").unlink()
    rows = [line.split() for line in ccnet("inspect", "build/ccnet").out.splitlines()]
    assert [row[-1] for row in rows if row[:1] == ["decode.onnx"]] == ["missing"]
    assert any(row[:1] == ["encode.onnx"] and "damaged," in row for row in rows)


def test_inspect_describes_a_graph(work: Path, ccnet: Ccnet, stub: Any) -> None:
    out = ccnet("inspect", "build/ccnet/decode.onnx").out
    assert "input rgb" in out and "(1, 3, H, W)" in out and "output cube" in out and "5a5a" in out
    Path("foreign.onnx").write_bytes(stub.without_manifest("encode"))
    assert "'ccnet export' did not write this file" in ccnet("inspect", "foreign.onnx").out


def weights(header: object, data: bytes = bytes(48)) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


TENSOR = {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}


def test_inspect_describes_weights(work: Path, ccnet: Ccnet) -> None:
    notes = {"config": json.dumps({"units": 3}), "steps": "900\x1b[31m"}
    Path("w.safetensors").write_bytes(weights({"__metadata__": notes, "a": TENSOR}))
    out = ccnet("inspect", "w.safetensors").out
    rows = [line.split() for line in out.splitlines()]
    assert ["parameters", "12"] in rows and ["units", "3"] in rows and ["dtype", "F32"] in rows
    assert "900?[31m" in out and "\x1b" not in out


def test_inspect_describes_cubes_and_frames(work: Path, ccnet: Ccnet) -> None:
    ccnet("reconstruct", "photo.png", "-o", "cube.npy")
    np.save("frame.npy", np.zeros((20, 31, 3), np.uint16))
    out = ccnet("inspect", "cube.npy").out
    assert "70×40 px, 31 bands" in out and all(f"\n{nm} " in out for nm in BANDS_NM)
    assert "31×20 px" in ccnet("inspect", "frame.npy").out
    assert "70×40 px, 0.0028 Mpx, uint8" in ccnet("inspect", "photo.png").out
    Image.open("photo.png").save("photo.tif")
    assert "70×40 px, 0.0028 Mpx, uint8" in ccnet("inspect", "photo.tif").out
    for name, package in (("cube.tif", "rasterio"), ("cube.nc", "h5netcdf")):
        pytest.importorskip(package)
        ccnet("reconstruct", "photo.png", "-o", name)
        assert ccnet("inspect", name).out == out


@pytest.mark.parametrize("name", ["index.tif", "index.hdr"])
def test_inspect_names_the_layers_of_an_index(work: Path, ccnet: Ccnet, name: str) -> None:
    pytest.importorskip("rasterio")
    write = write_layers if name.endswith("tif") else write_envi_layers
    layers = np.stack([np.full((4, 6), value, np.float32) for value in (-0.25, 0.5)])
    layers[1, 0, :2] = np.nan
    write(Path(name), layers, ("ndre", "red edge"), {})
    result = ccnet("inspect", name)
    rows = [" ".join(line.split()) for line in result.out.splitlines()]
    assert (result.code, result.err) == (0, "")
    assert rows[0] == "layers 6×4 px, float32, 2 without wavelengths: neither a cube nor a frame"
    assert "ndre -0.2500 -0.2500 -0.2500 0" in rows and "red edge 0.5000 0.5000 0.5000 2" in rows


def test_inspect_lists_the_topics_of_a_bag(work: Path, ccnet: Ccnet, assert_refused: Any) -> None:
    pytest.importorskip("rosbags")
    from tests.runtime.stream.ros.bags import COMPRESSED, IMAGE, compressed, image, write_bag

    frames = [image(number, np.zeros((4, 6, 3), np.uint8)) for number in range(2)]
    write_bag(work / "drive", {"/left": (IMAGE, frames), "/right": (COMPRESSED, [compressed(0, b"")])})
    rows = [" ".join(line.split()) for line in ccnet("inspect", "drive").out.splitlines()]
    assert rows[0] == "ROS 2 bag 3 messages"
    assert "/left sensor_msgs/msg/Image 2 reads it" in rows
    Path("old.bag").write_bytes(b"#ROSBAG V2.0")
    assert_refused(ccnet("inspect", "old.bag"), "old.bag: is a bag of ROS 1, expected ROS 2")


def test_inspect_names_the_command_for_a_zarr_group(work: Path, ccnet: Ccnet, assert_refused: Any) -> None:
    Path("cubes.zarr").mkdir()
    assert_refused(
        ccnet("inspect", "cubes.zarr"),
        "cubes.zarr: is a Zarr group, which this command does not read",
    )


def test_inspect_counts_what_the_masks_of_a_cube_leave_out(work: Path, ccnet: Ccnet) -> None:
    with open_cube("a.hdr", 4, 6) as writer:
        cube = np.full((31, 4, 6), 0.5, np.float32)
        cube[:, 0, :5] = -1
        writer.write(0, cube)
    with Path("a.hdr").open("a") as header:
        header.write("data ignore value = -1\nbbl = {0, 0" + ", 1" * 29 + "}\n")
    result = ccnet("inspect", "a.hdr")
    rows = [" ".join(line.split()) for line in result.out.splitlines()]
    assert result.code == 0 and rows[:2] == ["cube 6×4 px, 31 bands", "values 0.5 to 0.5, mean 0.5"]
    assert "data ignore value 5 of 24 pixels have no data" in rows
    assert "bbl 2 of 31 bands have no data: 400, 410 nm" in rows
    assert "410 nan nan nan" in rows and "420 0.5000 0.5000 0.5000" in rows


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt", b"hello"),
        ("a", b"hello"),
        ("a.npy", b"hello"),
        ("a.npy", b""),
        ("a.onnx", b"hello"),
        ("a.hdr", b"ENVI\nsamples = 3"),
        ("a.tif", b"II*\0" + bytes(40)),
        ("a.nc", b"\x89HDF\r\n\x1a\n"),
        ("a.mat", b"\x89HDF\r\n\x1a\n"),
        ("a.png", b"\x89PNG\r\n\x1a\n"),
        ("a.safetensors", b"\x01"),
        ("a.safetensors", b"\xff" * 64),
        ("a.safetensors", struct.pack("<Q", 1 << 40)),
        ("a.safetensors", weights([1])),
        ("a.safetensors", weights({"a": TENSOR}, bytes(47))),
        ("a.safetensors", weights({"a": 3})),
        ("a.safetensors", weights({"a": TENSOR, "__metadata__": {"config": "{"}})),
        ("a.safetensors", weights({"a": TENSOR, "__metadata__": [1]})),
    ],
)
def test_inspect_refuses_unknown_and_damaged_files(
    work: Path, ccnet: Ccnet, name: str, data: bytes, assert_refused: Any
) -> None:
    Path(name).write_bytes(data)
    assert_refused(ccnet("inspect", name), f"{name}: ")


@pytest.mark.parametrize("field", ["config", "tools", "weights_sha256"])
def test_inspect_refuses_a_manifest_of_wrong_types(work: Path, ccnet: Ccnet, field: str, assert_refused: Any) -> None:
    path = Path("build/ccnet/manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), field: 7}))
    assert_refused(ccnet("inspect", "build/ccnet"), "build/ccnet")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("inspect", "Missing PATH"),
        ("inspect photo.png --environment", "exclude each other"),
        ("inspect photo.png --json", "--json belongs to --environment"),
        ("inspect nothing.onnx", "nothing.onnx: no such file"),
        ("inspect build", "no manifest.json"),
    ],
)
def test_invalid_arguments_are_one_line(
    work: Path, ccnet: Ccnet, arguments: str, words: str, assert_refused: Any
) -> None:
    assert_refused(ccnet(*arguments.split()), words)
