"""The manifest: written to JSON and read back, from version 0.1.0 too, and invalid manifests refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet import contract
from ccnet.contract import (
    Artifact,
    CCNetError,
    Manifest,
    camera_response,
)

ENCODE = Artifact(file="encode.onnx", kind="encode", format="onnx", precision="fp32", sha256="a" * 64)
DECODE = Artifact(
    file="decode.engine", kind="decode", format="tensorrt", precision="fp16", sha256="b" * 64, details={"gpu": "Orin"}
)
MANIFEST = Manifest(
    config={"units": 3},
    weights_sha256="c" * 64,
    context_size=7680,
    input="float32",
    tools={"torch": "2.6"},
    artifacts=(ENCODE, DECODE),
)
RESPONSE = [[1 / 31] * 3 for _ in range(31)]
CAMERA = {"name": "flat", "response": RESPONSE}


def test_manifest_round_trips_through_json_and_disk(tmp_path: Path) -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    (tmp_path / contract.MANIFEST_NAME).write_text(MANIFEST.to_json())
    assert Manifest.read(tmp_path) == MANIFEST


def test_json_keys_are_those_of_version_0_1_0() -> None:
    raw = json.loads(replace(MANIFEST, fingerprint="f" * 64).to_json())
    assert raw.keys() == {
        *("config", "weights_sha256", "context_size", "input", "tools", "artifacts"),
        *("size_multiple", "halo", "camera", "inputs", "version"),
    }
    assert raw["inputs"] == "f" * 64
    assert Manifest.from_json(json.dumps(raw)).fingerprint == "f" * 64
    del raw["inputs"]
    assert Manifest.from_json(json.dumps(raw)).fingerprint == ""
    with pytest.raises(CCNetError, match="fingerprint"):
        Manifest.from_json(json.dumps(raw | {"fingerprint": ""}))
    with pytest.raises(CCNetError, match="manifest inputs is 7, expected a str"):
        Manifest.from_json(json.dumps(raw | {"inputs": 7}))


def test_camera_is_an_optional_manifest_field() -> None:
    manifest = replace(MANIFEST, camera=CAMERA)
    assert Manifest.from_json(manifest.to_json()) == manifest
    np.testing.assert_array_equal(camera_response(CAMERA), np.array(RESPONSE, np.float32))
    raw = json.loads(MANIFEST.to_json())
    assert raw.pop("camera") is None
    assert Manifest.from_json(json.dumps(raw)) == MANIFEST, "manifests of older exports have no such field"


@pytest.mark.parametrize(
    ("camera", "words"),
    [
        (7, "not a name and a response"),
        ({}, "not a name and a response"),
        ({"name": "x"}, "not a name and a response"),
        (CAMERA | {"more": 1}, "not a name and a response"),
        (CAMERA | {"name": 7}, "name is not plain text"),
        (CAMERA | {"name": "\x1b[31m"}, "name is not plain text"),
        (CAMERA | {"response": None}, "expected 31 rows of 3 numbers"),
        (CAMERA | {"response": RESPONSE[:30]}, r"\(30, 3\), expected 31 rows"),
        (CAMERA | {"response": [[1 / 31] * 4] * 31}, r"\(31, 4\), expected 31 rows"),
        (CAMERA | {"response": [*RESPONSE[:30], [1]]}, "rows of different lengths"),
        (CAMERA | {"response": [["0"] * 3] * 31}, "expected 31 rows of 3 numbers"),
        (CAMERA | {"response": [[10**400] * 3] * 31}, "expected 31 rows of 3 numbers"),
        (CAMERA | {"response": [*RESPONSE[:30], [1, 0, 0]]}, "do not sum to 1"),
        (CAMERA | {"response": [[3] * 3, [-2] * 3, *[[0] * 3] * 29]}, "negative"),
        (CAMERA | {"response": [[float("nan")] * 3] * 31}, "not finite"),
        (CAMERA | {"response": [[float("inf")] * 3] * 31}, "not finite"),
    ],
)
def test_invalid_camera_in_a_manifest_is_refused(camera: Any, words: str) -> None:
    with pytest.raises(CCNetError, match=words) as caught:
        Manifest.from_json(json.dumps(json.loads(MANIFEST.to_json()) | {"camera": camera}))
    assert str(caught.value).endswith("export again") and "\n" not in str(caught.value)


def test_find_error_lists_the_artifacts_present() -> None:
    assert MANIFEST.find("encode") is ENCODE
    assert MANIFEST.find("decode", format="tensorrt", precision="fp16") is DECODE
    with pytest.raises(CCNetError, match=r"no decode .* there are: decode tensorrt fp16, encode onnx fp32"):
        MANIFEST.find("decode")
    with pytest.raises(CCNetError, match="there are: none"):
        replace(MANIFEST, artifacts=()).find("decode")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a ccnet manifest"),
        ("{", "not a ccnet manifest"),
        (b"\xff\xfe\x00", "not a ccnet manifest"),
        ("[]", "not a ccnet manifest"),
        ("null", "not a ccnet manifest"),
        ("{}", "version is None, expected 1"),
        ('{"version": 1}', "not a ccnet manifest"),
    ],
)
def test_text_that_is_not_a_manifest_is_refused(text: str | bytes, words: str) -> None:
    with pytest.raises(CCNetError, match=words) as caught:
        Manifest.from_json(text)
    assert "export again" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "version is 2, expected 1"),
        ({"version": "1"}, "version is '1', expected 1"),
        ({"surprise": 1}, "surprise"),
        ({"artifacts": None}, "not a ccnet manifest"),
        ({"artifacts": [{"file": "a.onnx"}]}, "not a ccnet manifest"),
        ({"artifacts": ["a.onnx"]}, "not a ccnet manifest"),
        ({"context_size": 0}, "context_size is 0"),
        ({"context_size": True}, "context_size is True"),
        ({"context_size": 7680.0}, r"context_size is 7680\.0"),
        ({"size_multiple": -16}, "size_multiple is -16"),
        ({"halo": "64"}, "halo is '64'"),
        ({"halo": 40}, "halo 40 is not a multiple of 16"),
        ({"input": "int8"}, "input is 'int8', expected float32 or uint8"),
    ],
)
def test_invalid_manifest_field_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(CCNetError, match=words) as caught:
        Manifest.from_json(json.dumps(json.loads(MANIFEST.to_json()) | change))
    assert "export again" in str(caught.value)


@pytest.mark.parametrize("field", ["config", "weights_sha256", "context_size", "input", "tools", "artifacts"])
def test_missing_field_is_named(field: str) -> None:
    raw = json.loads(MANIFEST.to_json())
    del raw[field]
    with pytest.raises(CCNetError, match=field):
        Manifest.from_json(json.dumps(raw))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "train"}, "kind is 'train', expected encode, decode, full, golden or error"),
        ({"file": "../encode.onnx"}, r"expected a plain name inside the artifact's folder"),
        ({"file": "/etc/passwd"}, "expected a plain name"),
        ({"file": "sub/encode.onnx"}, "expected a plain name"),
    ],
)
def test_artifact_outside_its_folder_or_of_unknown_kind_is_refused(change: dict[str, str], words: str) -> None:
    raw = json.loads(MANIFEST.to_json())
    raw["artifacts"][0] |= change
    with pytest.raises(CCNetError, match=words):
        Manifest.from_json(json.dumps(raw))


def test_missing_or_invalid_manifest_error_names_its_folder(tmp_path: Path) -> None:
    with pytest.raises(CCNetError, match=r"no manifest\.json; expected a folder made by 'ccnet export'"):
        Manifest.read(tmp_path)
    (tmp_path / contract.MANIFEST_NAME).write_text("{}")
    with pytest.raises(CCNetError, match=r"manifest\.json: manifest version is None"):
        Manifest.read(tmp_path)
