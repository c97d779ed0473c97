"""``ccnet bench-train``: its variants compute the same, and its report is complete; no test depends on a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ccnet.export.bench import training
from ccnet.export.cli import app
from ccnet.model.config import CCNetConfig


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_both_variants_compute_the_same() -> None:
    torch.set_num_threads(1)
    for name, works in training.cases(CCNetConfig(units=1), patch=16, batches=[2]):
        reference, ccnet = works[training.REFERENCE](), works[training.CCNET]()
        if name.startswith("training"):  # an update returns nothing
            assert reference is ccnet is None
            continue
        assert isinstance(reference, tuple)
        assert isinstance(ccnet, tuple)
        for a, b in zip(reference, ccnet, strict=True):
            assert (a - b).abs().max() <= 1e-4 * max(1, a.abs().max())


def test_command_prints_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = training.cases
    monkeypatch.setattr(training, "cases", lambda config, patch, batches: cases(CCNetConfig(units=1), patch, batches))
    file = tmp_path / "bench.json"
    arguments = ["bench-train", "--patch", "16", "--repeats", "1", "--threads", "1", "--json", str(file)]
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "training step" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    document = json.loads(file.read_text())
    assert document["machine"]["threads"] == 1
    assert document["run"] == {"patch": 16, "batches": [1, 2], "repeats": 1}
    assert [row["name"].split()[0] for row in document["comparisons"]] == [*["training"] * 2, *["NeSCM"] * 3, "scan"]
    for row in document["comparisons"]:
        assert row["ratio"] == pytest.approx(row["naive"]["median"] / row["ours"]["median"])
