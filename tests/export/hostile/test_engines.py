"""Damaged engines through every command that meets them: one line each and no crash.

Without a GPU no library reads the bytes of an engine; there, a subprocess that kills itself stands in for a crash of
TensorRT. The tests marked ``gpu`` pass the damaged bytes to TensorRT.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccnet.contract import MANIFEST_NAME, CCNetError, Manifest
from ccnet.export import device
from ccnet.export.bundle import make_bundle
from ccnet.export.engine.plan import plan
from ccnet.export.verify import check
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.cli.contents import describe_file
from ccnet.runtime.probe import open_probed, probe_in_subprocess

from .artifacts import ENGINES, RTX, Ccnet, assert_refused, damaged, reference, vouch


def hundred(work: Path, built: Path, *, lies: bool) -> Iterator[str]:
    """Damage the engines alternately, a hundred times, and yield the name of the damaged engine."""
    before = (built / MANIFEST_NAME).read_bytes()
    for seed in range(100):
        name, other = ENGINES[seed % 2], ENGINES[1 - seed % 2]
        (work / name).write_bytes(damaged((built / name).read_bytes(), seed))
        (work / other).write_bytes((built / other).read_bytes())
        (work / MANIFEST_NAME).write_bytes(before)
        if lies:
            vouch(work)
        yield name


@pytest.mark.slow
def test_hundred_damaged_engines_are_detected(work: Path, built: Path, ccnet: Ccnet) -> None:
    """Call the functions behind the commands each time, and each slow command in turn."""
    commands = [
        ("inspect", work),
        ("check", work),
        ("reconstruct", "photo.png", "-o", "cube.npy", "--backend", "tensorrt-rtx"),
        ("build", work, "--backend", "tensorrt-rtx", "--tile", 64, "--dry-run"),
    ]
    expect = [assert_told, assert_refused, lambda result, name: assert_refused(result), assert_planned]
    for seed, name in enumerate(hundred(work, built, lies=False)):
        with pytest.raises(CCNetError, match=rf"{name}: SHA-256 is not the manifest's") as caught:
            next(check(work, reference()))
        assert "\n" not in str(caught.value)
        (state,) = (row[-1] for row in describe_file(work)[0] if row[0] == name)
        assert state.startswith("differs from the manifest: damaged")
        assert [job.file for job in plan(work, RTX) if job.why == "the one that is there is damaged"] == [name]
        if seed % 4 == 0:
            expect[seed // 4 % 4](ccnet(*commands[seed // 4 % 4]), name)
        assert not Path("cube.npy").exists()
    assert_refused(ccnet("inspect", work / name), f"{name}: unknown kind of file")


def assert_told(result: Any, name: str) -> None:
    assert result.code == 0 and result.err == ""
    assert any(line.startswith(name) and "differs from the manifest" in line for line in result.out.splitlines())


def assert_planned(result: Any, name: str) -> None:
    assert result.code == 0
    assert any(line.startswith(name) and line.endswith("is damaged") for line in result.err.splitlines())


@pytest.mark.slow
@pytest.mark.skipif(trt.has_gpu(), reason="there is a GPU: the test below gives its library the engines")
def test_hundred_damaged_engines_with_valid_hashes_are_not_run_without_a_gpu(
    work: Path, built: Path, ccnet: Ccnet
) -> None:
    """Without a GPU every command reports that and reads no engine; ONNX Runtime still runs the graphs."""
    for seed, name in enumerate(hundred(work, built, lies=True)):
        assert (name, "intact") in [(row[0], row[-1]) for row in describe_file(work)[0]]
        with pytest.raises(CCNetError, match=r"no CUDA driver|finds no GPU|cuInit failed") as caught:
            open_probed(work, backend="tensorrt-rtx")
        assert "\n" not in str(caught.value)
        assert not any(job.why for job in plan(work, RTX))
        if seed % 10 == 0:
            assert_refused(ccnet("reconstruct", "photo.png", "-o", "cube.npy", "--backend", "tensorrt-rtx"))
            checked = ccnet("check", work)
            assert checked.code == 0 and "tensorrt_rtx engine" in checked.out and "not run" in checked.out
            assert not Path("cube.npy").exists()
            assert ccnet("reconstruct", "photo.png", "-o", "cube.npy").code == 0
            Path("cube.npy").unlink()


@pytest.mark.parametrize("lies", [False, True], ids=["noticed", "the manifest lies"])
def test_bundle_unpacked_beside_a_damaged_engine_rebuilds_it(
    work: Path, capfd: pytest.CaptureFixture[str], lies: bool
) -> None:
    """It holds no engine; on the device a damaged one is built again, unless the device's own manifest lies."""
    (work / ENGINES[1]).write_bytes(b"damaged")
    if lies:
        vouch(work)
    make_bundle(work, [reference()], Path("b.zip"))
    options = ["--backend", "tensorrt-rtx", "--tile", "64"]
    code = device.main(["b.zip", str(work), *options])
    told = capfd.readouterr()
    assert "Traceback" not in told.err
    assert ((work / ENGINES[1]).read_bytes() == b"damaged") == lies
    if not trt.has_gpu():
        assert code == 0 and "not run" in told.out
        assert Manifest.read(work).find("decode", format="tensorrt_rtx", precision="fp16").read(work)


COMMANDS = [
    ("reconstruct", "photo.png", "-o", "cube.npy"),
    ("reconstruct", "photo.png", "-o", "cube.npy", "--backend", "tensorrt-rtx"),
    ("stream", "photo.png", "--sink", "cubes"),
]


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("command", COMMANDS, ids=["reconstruct", "by name", "stream"])
def test_engine_that_kills_its_process_is_one_line(
    work: Path, ccnet: Ccnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    (tmp_path / "dies").mkdir()
    (tmp_path / "dies" / "sitecustomize.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "dies"))
    before = sorted(tmp_path.rglob("*"))
    assert_refused(ccnet(*command), "build/ccnet: opening it ends the process (SIGSEGV)")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("work", "pretended")
@pytest.mark.skipif(trt.has_gpu(), reason="there is a GPU")
def test_refusal_in_the_subprocess_is_reported(ccnet: Ccnet) -> None:
    assert_refused(ccnet("reconstruct", "photo.png", "-o", "cube.npy"), "build/ccnet: no CUDA driver")


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not trt.has_gpu(), reason="there is no NVIDIA GPU")
def test_hundred_damaged_engines_loaded_by_tensorrt_are_refused_or_run(work: Path, built: Path) -> None:
    refused = 0
    for _ in hundred(work, built, lies=True):
        try:
            probe_in_subprocess(work, "tensorrt-rtx", "fp16")
        except CCNetError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 30, "those that are cut short at least"
