"""``ccnet bench-train``: what it compares and how it counts; no times are judged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ccnet.export.bench import training as bench
from ccnet.export.cli import app
from ccnet.model.config import CCNetConfig


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_ratio_is_of_the_medians() -> None:
    naive, ours = bench.Timing.of([0.006, 0.9, 0.003]), bench.Timing.of([0.002, 0.001, 0.07])
    assert (naive.median, naive.least, naive.most) == pytest.approx((6, 3, 900))
    assert bench.Comparison(name="", naive=naive, ours=ours).ratio == pytest.approx(3)


def test_both_take_turns_and_the_first_round_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []
    seconds = iter([100, 100, 1, 2, 3, 4, 5, 6])
    monkeypatch.setattr(bench, "_seconds", lambda work: (work(), next(seconds))[1])
    found = bench.compare("name", lambda: turns.append("naive"), lambda: turns.append("ours"), repeats=3)
    assert turns == ["naive", "ours"] * 4
    assert (found.naive.most, found.ours.median) == (5000, 4000)


def test_the_two_sides_compute_the_same() -> None:
    torch.set_num_threads(1)
    for name, naive, ours in bench.works(CCNetConfig(units=1), patch=16, batches=[2]):
        slow, fast = naive(), ours()
        if name.startswith("training"):  # an update returns nothing
            assert slow is fast is None
            continue
        assert isinstance(slow, tuple)
        assert isinstance(fast, tuple)
        for a, b in zip(slow, fast, strict=True):
            assert (a - b).abs().max() <= 1e-4 * max(1, a.abs().max())


def test_the_command_prints_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works = bench.works
    monkeypatch.setattr(bench, "works", lambda config, patch, batches: works(CCNetConfig(units=1), patch, batches))
    file = tmp_path / "bench.json"
    given = ["bench-train", "--patch", "16", "--repeats", "1", "--threads", "1", "--json", str(file)]
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, given)
    assert result.exit_code == 0, result.output
    assert "training step" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    document = json.loads(file.read_text())
    assert document["machine"]["threads"] == 1
    assert document["run"] == {"patch": 16, "batches": [1, 2], "repeats": 1}
    assert [row["name"].split()[0] for row in document["comparisons"]] == [*["training"] * 2, *["NeSCM"] * 3, "scan"]
    for row in document["comparisons"]:
        assert row["ratio"] == pytest.approx(row["naive"]["median"] / row["ours"]["median"])
