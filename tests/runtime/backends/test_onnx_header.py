"""The outermost fields of ONNX files: what is read is what onnx wrote, and damage is an error, never a crash."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from ccnet.contract import CCNetError
from ccnet.runtime.backends.onnx_header import read_metadata
from tests.runtime.conftest import manifest, model


@pytest.fixture(scope="module")
def whole() -> bytes:
    return model("decode", manifest()).SerializeToString()


@given(st.dictionaries(st.text(max_size=300), st.text(max_size=300), max_size=4), st.text(max_size=200))
def test_entries_are_those_that_onnx_wrote(entries: dict[str, str], text: str) -> None:
    written = onnx.ModelProto(ir_version=8, doc_string=text, graph=onnx.GraphProto(name=text))
    helper.set_model_props(written, entries)
    assert read_metadata("it", written.SerializeToString()) == entries


def test_entries_of_a_real_graph_are_found(whole: bytes) -> None:
    assert read_metadata("it", whole) == {
        entry.key: entry.value for entry in onnx.load_from_string(whole).metadata_props
    }


def test_every_shortened_file_is_refused_or_lacks_its_last_entries(whole: bytes) -> None:
    entries = read_metadata("it", whole)
    for end in np.linspace(0, len(whole) - 1, 200).astype(int):
        try:
            assert read_metadata("it", whole[:end]) != entries
        except CCNetError as error:
            assert "it: cannot be loaded as ONNX" in str(error)


@settings(max_examples=300)
@given(st.data())
def test_damaged_files_are_errors_and_never_crash(whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_metadata("it", bytes(damaged))
    except CCNetError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("content", [b"", b"\x08\x08", b"not a network", b"\xff" * 20, b"\x3a\xff\xff\xff\xff\x0f"])
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(CCNetError, match="it: cannot be loaded as ONNX"):
        read_metadata("it", content)
