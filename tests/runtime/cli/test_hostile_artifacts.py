"""Artifact folders with damaged files or false manifests: one line with exit code 2, and no crash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from ccnet.contract import MANIFEST_NAME, Manifest

Ccnet = Callable[..., Any]


DAMAGE: dict[str, tuple[Callable[[Any, Path], Any], str]] = {
    "manifest of words": (lambda stub, folder: (folder / MANIFEST_NAME).write_text("{"), "not a ccnet manifest"),
    "manifest empty": (lambda stub, folder: (folder / MANIFEST_NAME).write_text("{}"), "manifest version"),
    "graph missing": (lambda stub, folder: (folder / "decode.onnx").unlink(), "decode.onnx"),
    "graph truncated": (
        lambda stub, folder: (folder / "decode.onnx").write_bytes((folder / "decode.onnx").read_bytes()[:-40]),
        "SHA-256",
    ),
    "graph of words": (lambda stub, folder: stub.replace(folder, "decode", b"hello " * 9), "decode.onnx"),
    "graph of others": (
        lambda stub, folder: stub.replace(folder, "encode", stub.without_manifest("encode")),
        "manifest",
    ),
    "graph gives NaN": (lambda stub, folder: stub.replace(folder, "decode", stub.infinite()), "NaN or infinite"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_artifacts_are_one_line_and_write_nothing(
    work: Path, ccnet: Ccnet, damage: str, stub: Any, assert_refused: Any
) -> None:
    spoil, words = DAMAGE[damage]
    spoil(stub, work / "build" / "ccnet")
    before = sorted(work.rglob("*"))
    assert_refused(ccnet("reconstruct", "photo.png", "-o", "photo.hdr", "--picture", "look.png"), words)
    assert sorted(work.rglob("*")) == before


def corrupted(data: bytes, seed: int) -> bytes:
    """Return the data with a few bits flipped, and truncated as well for every third seed."""
    rng, damaged = np.random.default_rng(seed), bytearray(data)
    for at in rng.integers(0, len(data), int(rng.integers(1, 12))):
        damaged[at] ^= 1 << int(rng.integers(8))
    return bytes(damaged[: rng.integers(len(data))] if seed % 3 == 0 else damaged)


@pytest.mark.usefixtures("one_parser")
@pytest.mark.parametrize(
    ("name", "lies"),
    [
        (MANIFEST_NAME, False),
        *((name, lies) for name in ("encode.onnx", "decode.onnx") for lies in (False, True)),
    ],
)
def test_hundred_corrupted_files_are_one_line_each(
    work: Path, exported: Path, ccnet: Ccnet, name: str, lies: bool, assert_refused: Any, stub: Any
) -> None:
    """A damaged graph with a matching SHA-256 in the manifest is refused or run by ONNX Runtime."""
    folder, refusals = work / "build" / "ccnet", 0
    for seed in range(100):
        (folder / name).write_bytes(corrupted((exported / name).read_bytes(), seed))
        if lies:
            stub.vouch(folder, Manifest.read(exported))
        result = ccnet("reconstruct", "photo.png", "-o", "cube.npy")
        if result.code:
            assert_refused(result, "")
            assert not Path("cube.npy").exists()
            refusals += 1
        Path("cube.npy").unlink(missing_ok=True)
        if name != MANIFEST_NAME:
            assert ccnet("inspect", folder / name).code in (0, 2)
    assert refusals >= (30 if lies else 90 if name != MANIFEST_NAME else 60)


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../outside.bin", "weights.bin"], ids=["absolute", "above", "beside"]
)
def test_weights_in_other_files_are_refused(
    work: Path, ccnet: Ccnet, location: str, assert_refused: Any, stub: Any
) -> None:
    folder = work / "build" / "ccnet"
    (folder / "weights.bin").write_bytes(bytes(31 * 3 * 4))
    model = onnx.load(folder / "decode.onnx")
    gain = next(tensor for tensor in model.graph.initializer if tensor.name == "gain")
    gain.ClearField("raw_data")
    gain.data_location = TensorProto.EXTERNAL
    gain.external_data.add(key="location", value=location)
    (folder / "decode.onnx").write_bytes(model.SerializeToString())
    stub.vouch(folder)
    assert_refused(ccnet("reconstruct", "photo.png", "-o", "cube.npy"), "keeps tensors in another file")
