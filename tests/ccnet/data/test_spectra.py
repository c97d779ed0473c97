"""Measured curves: every file layout, resampling to the bands, and invalid files."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.data.spectra import MAX_BYTES, Spectra, on_bands, read_spectra

Rows = Sequence[tuple[float, Sequence[Any]]]
FINE = np.arange(380, 781, 5.0)


def everything(names: Sequence[str]) -> list[int]:
    return list(range(len(names)))


def read(path: Path) -> Spectra:
    return read_spectra(path, "a camera response", everything)


def curve(nm: Any) -> Any:
    """Return two smooth curves, (N,) → (N, 2)."""
    return np.exp(-(((np.asarray(nm)[:, None] - [450, 600]) / 40) ** 2))


def rawtoaces(rows: Rows, names: Sequence[str] = ("R", "G"), **header: Any) -> str:
    main = {f"{nm:g}": list(values) for nm, values in rows}
    return json.dumps({"header": header, "spectral_data": {"index": {"main": names}, "data": {"main": main}}})


def table(rows: Rows, delimiter: str = ",") -> str:
    lines = [["nm", "R", "G"], *[[nm, *values] for nm, values in rows]]
    return "\n".join(delimiter.join(map(str, line)) for line in lines)


def samples(nm: Any = FINE) -> list[tuple[float, list[float]]]:
    return list(zip(map(float, nm), curve(nm).tolist(), strict=True))


def refusal(path: Path, words: str) -> None:
    with pytest.raises(CCNetError, match=words) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_every_file_layout_gives_the_same_curves(tmp_path: Path) -> None:
    expected = on_bands(FINE, curve(FINE))
    files = {
        "a.json": rawtoaces(samples(), manufacturer="Maker", model="M 1"),
        "b.csv": table(samples()),
        "c.CSV": "\ufeff" + table(samples(), ";") + "\n\n",
        "d.tsv": table(samples(), "\t"),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        np.testing.assert_allclose(read(tmp_path / name).values, expected, rtol=1e-12)
    assert [read(tmp_path / name).name for name in files] == ["Maker M 1", "b", "c", "d"]
    np.savez(tmp_path / "e.npz", filters=np.repeat(curve(FINE)[:, :1], 3, 1), bands=[FINE])
    np.testing.assert_allclose(read(tmp_path / "e.npz").values, expected[:, [0, 0, 0]], rtol=1e-12)
    np.savez(tmp_path / "f.npz", power=curve(BANDS_NM)[:, 0])
    np.testing.assert_allclose(read(tmp_path / "f.npz").values, curve(BANDS_NM)[:, :1], rtol=1e-12)


@pytest.mark.parametrize("header", [{}, {"manufacturer": "Maker"}, {"manufacturer": "a\nb", "model": "c"}])
def test_unusable_name_is_replaced_by_the_file_name(tmp_path: Path, header: dict[str, str]) -> None:
    path = tmp_path / "stem.json"
    path.write_text(rawtoaces(samples(), **header))
    assert read(path).name == "stem"


def test_samples_at_the_bands_are_only_normalised() -> None:
    values = np.random.default_rng(0).uniform(0, 1, (31, 2))
    np.testing.assert_allclose(on_bands(np.array(BANDS_NM, float), values), values / values.max(0), rtol=1e-12)


def test_fine_samples_are_averaged_over_each_band() -> None:
    """At 5 nm a band is a quarter, a half and a quarter of three samples; at 1 nm the integral, whatever its shape."""
    values = np.random.default_rng(0).uniform(0, 1, (81, 1))
    centre = np.searchsorted(FINE, 550)
    expected = values[centre - 1 : centre + 2, 0] @ [0.25, 0.5, 0.25] / values.max()
    np.testing.assert_allclose(on_bands(FINE, values)[15, 0], expected, rtol=1e-12)

    nm = np.arange(395, 706, 1.0)
    parabola = (nm[:, None] - 390) ** 2
    integral = [((b - 385) ** 3 - (b - 395) ** 3) / 30 for b in BANDS_NM]  # the mean of the parabola over ±5 nm
    np.testing.assert_allclose(on_bands(nm, parabola)[:, 0] * parabola.max(), integral, rtol=2e-3)


def test_band_average_ends_at_the_last_sample() -> None:
    nm = np.arange(400, 701, 5.0)
    np.testing.assert_allclose(on_bands(nm, nm[:, None])[:, 0] * 700, [402.5, *BANDS_NM[1:-1], 697.5], rtol=1e-12)


def test_coarse_samples_are_interpolated() -> None:
    nm = np.arange(380, 721, 20.0)
    values = on_bands(nm, nm[:, None] - 300)[:, 0]
    np.testing.assert_allclose(values * 420, np.array(BANDS_NM) - 300, rtol=1e-12)


def test_only_gaps_within_400_to_700_nm_count() -> None:
    """A file that is coarse outside 400-700 nm is fine inside."""
    nm = np.array([300, *np.arange(395, 706, 5), 1000.0])
    assert on_bands(nm, curve(nm)).shape == (31, 2)


def test_curves_of_any_magnitude_are_read() -> None:
    for scale in (1e-300, 1e300):
        np.testing.assert_allclose(on_bands(FINE, curve(FINE) * scale), on_bands(FINE, curve(FINE)), rtol=1e-9)


def test_small_negative_values_become_zero_and_larger_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for lowest in (-0.009, -0.011):
        values = curve(BANDS_NM)
        values[-1] = lowest
        path.write_text(table(list(zip(BANDS_NM, values.tolist(), strict=True))))
        if lowest > -0.01:
            assert (read(path).values[-1] == 0).all()
    refusal(path, r"values go to -0\.011, expected none under -1 % of their curve's peak")


def changed(at: int, nm: float | None = None, value: Any = None) -> Rows:
    rows: list[tuple[float, Any]] = [(n, list(v)) for n, v in samples()]
    was, values = rows[at]
    rows[at] = (was if nm is None else nm, values if value is None else [value, values[1]])
    return rows


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "holds 0 wavelengths"),
        (changed(3, value="nan"), "NaN or infinite"),
        (changed(3, value="-inf"), "NaN or infinite"),
        (changed(3, nm=float("nan")), "NaN or infinite"),
        (changed(3, value=""), "not a camera response .*could not convert"),
        (changed(3, value="0,5"), "a row holds 3 values, expected 2"),
        (changed(3, nm=380), "do not ascend"),
        (changed(3, nm=500), "do not ascend"),
        (samples(FINE[::-1]), "do not ascend"),
        (samples(FINE[5:]), "from 405 to 780 nm, expected 400 to 700 nm to be covered"),
        (samples(FINE[:60]), "from 380 to 675 nm, expected 400 to 700 nm to be covered"),
        (samples(FINE / 1000), "from 0.38 to 0.78 nm"),
        (samples([*FINE[:20], *FINE[30:]]), "55 nm apart, expected at most 20 nm"),
        (samples(np.arange(375, 726, 25)), "25 nm apart, expected at most 20 nm"),
        ([(nm, [0, 1]) for nm in FINE], "a curve of zeros in 400-700 nm"),
        ([(nm, [float(nm > 750), 1]) for nm in FINE], "a curve of zeros in 400-700 nm"),
        ([(nm, [-1, 1]) for nm in FINE], "values go to -1, expected none under -1 %"),
        ([(nm, [0.5 - (nm == 500), 1]) for nm in FINE], "values go to -0.5, expected none under -1 %"),
    ],
)
def test_invalid_curves_are_refused(tmp_path: Path, rows: Rows, words: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(table(rows))
    refusal(path, words)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"spectral_data"',
        '{"spectral_data": null}',
        '{"spectral_data": {"index": {"main": ["R"]}}}',
        '{"header": [], "spectral_data": {"index": {"main": ["R"]}, "data": {"main": {"400": [1]}}}}',
        rawtoaces([(400, ["x"])], ["R"]),
        rawtoaces([(400, [None])], ["R"]),
        rawtoaces([(400, [[1, 2]])], ["R"]),
        rawtoaces([(400, [10**400])], ["R"]),
        rawtoaces(samples()).replace('"380"', '"ultraviolet"'),
        "[" * 100_000,
        "\0\xff\n",
    ],
)
def test_invalid_rawtoaces_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    refusal(path, "not a camera response")


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xff\xfe\x00", b"nm,R\n\x80", b'nm,R\n"400,1'])
def test_invalid_table_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    refusal(path, "not a camera response|expected")


def test_file_beyond_the_size_limit_is_refused(tmp_path: Path) -> None:
    for name in ("a.json", "a.csv", "a.npz"):
        path = tmp_path / name
        with path.open("wb") as file:
            file.truncate(MAX_BYTES + 1)
        refusal(path, "is larger than 4 MiB")


def test_archive_that_unpacks_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("filters.npy", bytes(MAX_BYTES + 1))
    assert path.stat().st_size < MAX_BYTES / 100
    refusal(path, "unpacks to more than 4 MiB")


def test_unknown_or_missing_file_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path / "nowhere.csv", "no such file, expected a camera response")
    refusal(tmp_path, "is a folder, expected a camera response")
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    refusal(tmp_path / "a.xlsx", r"\.xlsx, expected a camera response \(\.json, \.csv, \.tsv, \.npz\)")
