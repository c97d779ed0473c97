"""Files that appear whole or not at all, and hashes."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ccnet.contract import CCNetError, sha256, write_atomic


def test_file_is_written_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"old", b"new and longer"):
        write_atomic(path, data)
        assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full_disk(partial: Path, data: bytes) -> int:
        with partial.open("wb") as file:
            file.write(data[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(CCNetError, match="No space left on device"):
        write_atomic(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_path_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "below", tmp_path / "taken"):
        with pytest.raises(CCNetError, match=r"cannot be (written|made)"):
            write_atomic(path, b"data")
    assert sorted(child.name for child in tmp_path.iterdir()) == ["file", "taken"]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_atomic(tmp_path / "new" / "deeper" / "file", b"data")
    assert (tmp_path / "new/deeper/file").read_bytes() == b"data"


def test_processes_that_write_one_file_have_partial_files_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        [*pool.map(lambda number: write_atomic(tmp_path / "file", bytes([number]) * 100_000), range(32))]
    assert len(set((tmp_path / "file").read_bytes())) == 1
    assert [child.name for child in tmp_path.iterdir()] == ["file"]


def test_sha256_of_a_file_longer_than_a_block(tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes((1 << 20) + 17)
    (tmp_path / "file").write_bytes(data)
    assert sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()
