"""``ccnet bench --against``: both networks are measured on the same frames, and the table says the ratios."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ccnet.contract import CCNetError
from ccnet.export.bench import against
from ccnet.export.bench.against import CCNET, PEER, Comparison, Cost, sizes_for
from ccnet.export.bench.networks import Network
from ccnet.export.bench.peer import Peer
from ccnet.export.bench.timing import Timing
from ccnet.export.cli import app
from ccnet.runtime.backends.onnxruntime import operators
from ccnet.runtime.cli.main import main
from tests.export.bench.test_peer import write_peer


def test_sizes_are_those_that_the_peer_takes(tmp_path: Path) -> None:
    sizes = [(128, 128), (482, 512), (1080, 1920)]
    free = Peer(write_peer(tmp_path / "free.onnx"), threads=1)
    fixed = Peer(write_peer(tmp_path / "fixed.onnx", (1, 3, 48, 64)), threads=1)
    one_side = Peer(write_peer(tmp_path / "side.onnx", (1, 3, 512, "width")), threads=1)
    low = Peer(write_peer(tmp_path / "low.onnx", (1, 3, 16, "width")), threads=1)
    assert sizes_for(free, sizes) == sizes
    assert sizes_for(fixed, sizes) == [(48, 64)]
    assert sizes_for(one_side, sizes) == sizes[:2]
    with pytest.raises(CCNetError, match=r"takes none of the frames 128×128"):
        sizes_for(low, sizes)


@pytest.mark.slow
@pytest.mark.skipif(not operators(), reason="the kernels are not compiled here: no C compiler")
def test_both_are_measured_on_the_same_frame(exported_networks: dict[str, Network], tmp_path: Path) -> None:
    peer = Peer(write_peer(tmp_path / "peer.onnx"), threads=1)
    row = against.compare(exported_networks["CCNet"].folder, peer, (40, 56), 2, 1)
    assert row.timings.keys() == row.costs.keys() == {CCNET, PEER}
    for name, cost in row.costs.items():
        assert 0 < cost.load <= cost.first_cube, name
        assert cost.peak_mb is None or 20 < cost.peak_mb < 2000, name
    assert row.ratio == pytest.approx(row.timings[PEER].median / row.timings[CCNET].median)
    assert 0 < row.least_ratio < 1  # a 1×1 convolution


def test_cost_of_a_network_that_fails_is_an_error_of_one_line(tmp_path: Path) -> None:
    peer = Peer(write_peer(tmp_path / "peer.onnx"), threads=1)
    peer.path.write_bytes(b"changed since")
    with pytest.raises(CCNetError, match=r"peer\.onnx: cannot be measured .*cannot be loaded as ONNX") as error:
        against._cost_in_process(PEER, peer.path, _png(tmp_path), 1)
    assert "\n" not in str(error.value)


def test_table_leads_with_the_ratios(tmp_path: Path) -> None:
    peer = Peer(write_peer(tmp_path / "peer.onnx", halvings=2), threads=1)
    timings = {CCNET: Timing(median=100, least=80, most=130), PEER: Timing(median=150, least=140, most=160)}
    costs = {CCNET: Cost(load=0.1, first_cube=0.3, peak_mb=200), PEER: Cost(load=0.4, first_cube=0.6, peak_mb=None)}
    rows = [Comparison(size=(482, 512), timings=timings, costs=costs)]
    document = json.loads(json.dumps(against.document(peer, rows, {"repeats": 3, "threads": 2})))
    assert document["peer"] == {"file": "peer.onnx", "size": [None, None], "multiple": 4}
    text = against.markdown(document)
    assert "| 482×512 | 1.50× | 1.75× | 100 (80 to 130) | 150 (140 to 160) | 0.30 and 0.60 | 200 and – |" in text
    assert "CCNet 0.10 s, the peer 0.40 s" in text


def test_bad_network_is_refused_before_anything_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ccnet.export.bench.networks.export_ccnet", lambda *_: pytest.fail("exported"))
    path = write_peer(tmp_path / "peer.onnx", (1, 4, "h", "w"))
    monkeypatch.setattr("sys.argv", ["ccnet", "bench", "--against", str(path), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "(1, 4, h, w), expected one tensor(float) (1, 3, H, W)" in message
    assert message.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(not operators(), reason="the kernels are not compiled here: no C compiler")
def test_command_writes_the_table_and_the_figures(
    exported_networks: dict[str, Network], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = exported_networks["CCNet"].folder
    monkeypatch.setattr("ccnet.export.bench.networks.export_ccnet", lambda *_: folder)
    path = write_peer(tmp_path / "peer.onnx", (1, 3, 48, 64))
    arguments = ["bench", "--against", str(path), "--out", str(tmp_path), "--repeats", "1", "--threads", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "against.md").read_text() in result.stdout
    assert [row["size"] for row in json.loads((tmp_path / "against.json").read_text())["rows"]] == [[48, 64]]


def _png(folder: Path) -> Path:
    path = folder / "frame.png"
    path.write_bytes(against.patches_png((16, 24)))
    return path
