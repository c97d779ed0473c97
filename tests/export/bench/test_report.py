"""The documents, tables and picture of ``ccnet bench``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ccnet.export.bench import report
from ccnet.export.bench.frames import Growth
from ccnet.export.bench.inference import FRAME, FUSED, MHA, Row
from ccnet.export.bench.roofline import Rates
from ccnet.export.bench.timing import Timing


@pytest.fixture
def document() -> report.Document:
    timings = {FUSED: Timing(median=10, least=9, most=12), MHA: Timing(median=15, least=14, most=20)}
    rows = [
        Row(name="decode", size=(64, 80), timings=timings, roofline=4, difference=2e-7),
        Row(name=FRAME, size=(64, 80), timings={FUSED: timings[FUSED]}, roofline=None, difference=None),
    ]
    growth = [Growth(megapixels=2, seconds=9, peak_mb=800)]
    seconds, rates = {"export, CCNet": 20.0}, Rates(copy=1e10, product=1e11)
    return report.inference_document(rows, growth, rates, seconds, {"repeats": 3, "threads": 2})


def test_tables_hold_ratios_and_ccnets_times(document: report.Document) -> None:
    text = report.markdown(document)
    assert "| decode | 64×80 | 10 (9 to 12) | 4 | 2e-07 | 1.50× |" in text
    assert "| frame | 64×80 | 10 (9 to 12) | – | – | – |" in text
    assert "| 2.00 | 9.0 | 4.50 | 800 |" in text
    assert "| export, CCNet | 20.0 |" in text
    row = json.loads(json.dumps(document))["rows"][0]
    assert row["ratios"][MHA] == 1.5
    assert (row["ways"][MHA]["median"], row["floor"]) == (15, 4)


def test_picture_is_drawn(document: report.Document, tmp_path: Path) -> None:
    from PIL import Image

    report.picture(document, tmp_path / "bench.png")
    with Image.open(tmp_path / "bench.png") as image:
        assert np.asarray(image.convert("L")).std() > 5
