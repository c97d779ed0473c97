"""The table of an engine's kernels in ``ccnet inspect``."""

from __future__ import annotations

from ccnet.runtime.cli.contents import kernel_table


def test_kernels_are_shown_by_part_with_their_total() -> None:
    assert kernel_table({"kernels": {"NeSCM": [138, 3_408_000_000], "rest": [45, 1_486_000_000]}}) == [
        ("  part", "kernels", "GB a tile"),
        ("  NeSCM", "138", "3.41"),
        ("  rest", "45", "1.49"),
        ("  total", "183", "4.89"),
    ]


def test_bytes_of_a_free_size_are_said_to_be_uncounted() -> None:
    *_, rest, total = kernel_table({"kernels": {"NeSCM": [1, 1_000_000_000], "rest": [2, None]}})
    assert rest == ("  rest", "2", "not counted: free size")
    assert total == ("  total", "3", "not counted: free size")


def test_engine_of_an_older_version_has_no_count() -> None:
    assert kernel_table({"layers": 3}) == [("  kernels", "not counted")]
