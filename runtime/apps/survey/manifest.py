"""The manifest of a survey, ``manifest.parquet``: one row a frame, with its result or the reason why it failed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from ccnet.contract import CCNetError, decode_errors_as, write_atomic
from ccnet.runtime.io.files import optional_module

MANIFEST = "manifest.parquet"
"""Name of the file in the folder of results."""

_KEY = b"ccnet.survey"
Status = Literal["done", "failed"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """The result of one frame: done, or failed with a reason.

    Attributes:
        frame: Name of the frame's results.
        location: Path or address of the frame.
        status: ``done`` or ``failed``; a frame without a row is still to do.
        output: File of the result, relative to the manifest; empty if there is none.
        reason: Why the frame failed; empty if it did not.
        seconds: Time from reading the frame to the whole result, s.
        worker: Host and process that did it.
        backend: Backend and precision that computed the result; with ``auto``, workers may differ.
        sha256: Hash of the result's values, as hex digits.
        height: Rows of the frame; 0 if it could not be read.
        width: Columns of the frame.
        finished: Time of the end in UTC, ISO 8601.
        disk_full: The disk had no space for the result.
    """

    frame: str
    location: str
    status: Status
    output: str = ""
    reason: str = ""
    seconds: float = 0.0
    worker: str = ""
    backend: str = ""
    sha256: str = ""
    height: int = 0
    width: int = 0
    finished: str = ""
    disk_full: bool = False


def read_manifest(folder: Path, survey: Mapping[str, str]) -> dict[str, Row]:
    """Return name of frame → row; empty if there is no manifest yet.

    Args:
        folder: Folder of the results.
        survey: Facts that the results depend on.

    Returns:
        The rows.

    Raises:
        CCNetError: The manifest is damaged, or of a survey with other facts.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    parquet = optional_module("pyarrow.parquet", "scale")
    with decode_errors_as(path, "a survey's manifest"):
        table = parquet.read_table(path, columns=[field.name for field in fields(Row)])
        before = json.loads(table.schema.metadata[_KEY])
        rows = [Row(**values) for values in table.to_pylist()]
    if differing := [name for name in survey if before.get(name) != survey[name]]:
        name = differing[0]
        raise CCNetError(
            f"{folder}: holds a survey whose {name} is {before.get(name)!r}, this one's is {survey[name]!r};"
            " choose another --out"
        )
    return {row.frame: row for row in rows}


def as_text(name: str) -> str:
    r"""Return a name that Parquet can store: bytes of a file name that are not UTF-8 become ``\udce9`` and the like."""
    return name.encode("utf-8", "backslashreplace").decode()


def write_manifest(folder: Path, rows: Iterable[Row], survey: Mapping[str, str]) -> None:
    """Write the manifest as a whole, sorted by frame; an older one stays until then.

    Args:
        folder: Folder of the results.
        rows: One row for each frame that was tried.
        survey: Facts that the results depend on.
    """
    arrow, parquet = optional_module("pyarrow", "scale"), optional_module("pyarrow.parquet", "scale")
    types = {"str": arrow.string(), "Status": arrow.string(), "float": arrow.float64(), "int": arrow.int64()}
    columns = [(field.name, types.get(str(field.type), arrow.bool_())) for field in fields(Row)]
    schema = arrow.schema(columns, metadata={_KEY: json.dumps(dict(survey))})
    lines = [
        {name: as_text(value) if isinstance(value, str) else value for name, value in asdict(row).items()}
        for row in sorted(rows, key=lambda row: row.frame)
    ]
    table = arrow.Table.from_pylist(lines, schema)
    file = io.BytesIO()
    parquet.write_table(table, file)
    write_atomic(folder / MANIFEST, file.getvalue())
