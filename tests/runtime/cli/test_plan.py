"""``ccnet plan``: the tiles of a frame as a table and a picture, without decoding it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Ccnet = Callable[..., Any]


def table(out: str) -> dict[str, str]:
    return {line[:8].strip(): line[10:] for line in out.splitlines() if line[8:10] == "  "}


def test_plan_of_a_size_names_tiles_cost_and_memory(work: Path, ccnet: Ccnet) -> None:
    result = ccnet("plan", "4000x3000", "--memory", "2000")
    assert result.code == 0
    rows = table(result.out)
    assert rows["frame"] == "4000×3000 px, 12 Mpx"
    assert rows["graph"] == "decode.onnx, 3500 bytes a pixel of a tile"
    assert "halo 16 px" in rows["tiles"]
    assert 1 <= float(rows["computed"].split()[0]) <= 1.3
    assert rows["memory"].endswith("budget 2000 MB")
    assert int(rows["memory"].split()[1]) <= 2000


def test_plan_of_a_file_is_drawn(work: Path, ccnet: Ccnet) -> None:
    result = ccnet("plan", "photo.png", "--tile", "48", "--picture", "plan.png")
    assert result.code == 0
    rows = table(result.out)
    assert rows["frame"].startswith("70×40 px")
    assert rows["tiles"] == "3×1 of 48×48 px, halo 16 px"
    assert rows["memory"].endswith("budget no limit")
    assert np.asarray(Image.open("plan.png")).std() > 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("0x10",), "size is 0x10, expected WxH"),
        (("missing.png",), "missing.png"),
        (("100x100", "--memory", "0"), "--memory is 0 MB"),
        (("100x100", "--memory", "100", "--tile", "64"), "tile and memory both decide"),
        (("100x100", "--memory", "10"), "needs at least"),
        (("100x100", "--tile", "50"), "tile is 50 px"),
        (("100x100", "--picture", "plan.jpg"), "expected .png"),
    ],
)
def test_wrong_input_is_one_line(
    work: Path, ccnet: Ccnet, assert_refused: Any, arguments: tuple[str, ...], words: str
) -> None:
    assert_refused(ccnet("plan", *arguments), words)


def test_reconstruct_takes_a_budget(work: Path, ccnet: Ccnet, assert_refused: Any) -> None:
    assert ccnet("reconstruct", "photo.png", "-o", "photo.npy", "--memory", "200").code == 0
    assert_refused(ccnet("reconstruct", "photo.png", "-o", "other.npy", "--memory", "100"), "needs at least")
    assert not Path("other.npy").exists()
