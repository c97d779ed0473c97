"""The hand-written declarations of ONNX Runtime's C interface, compared with its real header.

The header comes from Debian's or Ubuntu's ``libonnxruntime-dev``, or from a folder named by ONNXRUNTIME_INCLUDE.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[3] / "ccnet/csrc"
ABI = (CSRC / "onnxruntime/abi.h").read_text(encoding="utf-8")
CONSTANTS = {
    "FAIL": "ORT_FAIL",
    "INVALID_ARGUMENT": "ORT_INVALID_ARGUMENT",
    "ELEMENT_FLOAT": "ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT",
    "REQUIRED": "INPUT_OUTPUT_REQUIRED",
    "MEMORY_DEFAULT": "OrtMemTypeDefault",
}
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def real_header() -> Path | None:
    """Return the path of onnxruntime_c_api.h, or None where it is not installed."""
    named = os.environ.get("ONNXRUNTIME_INCLUDE")
    folders = [Path(named)] if named else [Path("/usr/include/onnxruntime"), Path("/usr/local/include/onnxruntime")]
    return next((path for folder in folders for path in sorted(folder.rglob("onnxruntime_c_api.h"))), None)


def members(name: str) -> list[str]:
    """Return the members of a struct in abi.h that ONNX Runtime names as well."""
    (body,) = re.findall(rf"^struct {name} {{\n(.*?)^}};", ABI, re.DOTALL | re.MULTILINE)
    functions = re.findall(r"\(\*(\w+)\)\((?=[^*])", body)
    plain = re.findall(r"^    (?:uint32_t|void \*)\s*(\w+);", body, re.MULTILINE)
    return [*plain, *(function for function in functions if function != "function")]


def assertions() -> list[str]:
    """Return C's static assertions: offsets of members, values of constants, and that the version is supported."""
    offsets = [
        f"offsetof({struct}, {member}) == offsetof(Ort{struct}, {member})"
        for struct in ("Api", "CustomOp")
        for member in members(struct)
    ]
    base = [
        f"offsetof(ApiBase, {member}) == offsetof(OrtApiBase, {member})" for member in ("GetApi", "GetVersionString")
    ]
    values = [f"(int)ABI_{name} == (int){real}" for name, real in CONSTANTS.items()]
    return [*offsets, *base, *values, "(int)API_VERSION <= ORT_API_VERSION", "sizeof(CustomOp) <= sizeof(OrtCustomOp)"]


def compile_against(header: Path, abi: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Compile the assertions; abi.h's constants get a prefix, because some have the names of ONNX Runtime's macros."""
    prefixed = re.sub(rf"\b({'|'.join(CONSTANTS)})\b", r"ABI_\1", abi)
    (folder / "abi.h").write_text(prefixed, encoding="utf-8")
    checks = "".join(f'_Static_assert({check}, "{check}");\n' for check in assertions())
    source = folder / "check.c"
    source.write_text(f'#include "{header}"\n#include "abi.h"\n{checks}', encoding="utf-8")
    assert COMPILER is not None
    return subprocess.run([COMPILER, "-fsyntax-only", str(source)], capture_output=True, text=True, check=False)


def test_every_function_that_operators_use_is_compared() -> None:
    operators = (CSRC / "onnxruntime/operators.c").read_text(encoding="utf-8")
    used = set(re.findall(r"api->(\w+)", operators)) | set(re.findall(r"\.([A-Z]\w+) =", operators))
    assert used
    assert used <= {*members("Api"), *members("CustomOp")}


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
@pytest.mark.skipif(real_header() is None, reason="libonnxruntime-dev is not installed")
class TestRealHeader:
    def test_declarations_are_those_of_the_header(self, tmp_path: Path) -> None:
        header = real_header()
        assert header is not None
        compiled = compile_against(header, ABI, tmp_path)
        assert compiled.returncode == 0, compiled.stderr

    def test_wrong_offset_in_the_function_table_is_detected(self, tmp_path: Path) -> None:
        header = real_header()
        assert header is not None
        compiled = compile_against(header, ABI.replace("unused_52[9]", "unused_52[8]"), tmp_path)
        assert "offsetof(Api, GetDimensionsCount)" in compiled.stderr
        assert "offsetof(Api, GetTensorMutableData)" not in compiled.stderr
