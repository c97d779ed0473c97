"""The Python examples of the documents run unchanged, in a folder with the files that they name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccnet.model import CCNet

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted((REPOSITORY / "docs/api").glob("*.md"))


def python_blocks(page: Path) -> list[str]:
    """Return the fenced Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def run(code: str, page: Path) -> None:
    """Execute code with the page's name in its tracebacks."""
    exec(compile(code, str(page), "exec"), {"__name__": "__main__"})  # noqa: S102


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifacts: tuple[CCNet, Path]) -> Path:
    """Enter a folder with ``build/ccnet``, a tiny network's export, and ``photo.png``."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build/ccnet").symlink_to(artifacts[1], target_is_directory=True)
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "index"], ids=lambda page: page.stem)
def test_reference_page_begins_with_an_example_that_runs(page: Path, working_folder: Path) -> None:
    before, found, _ = page.read_text(encoding="utf-8").partition("```{eval-rst}")
    assert found and len(python_blocks(page)) == 1
    (code,) = python_blocks(page)
    assert code in before
    run(code, page)


def test_example_of_the_readme_runs(working_folder: Path) -> None:
    (code,) = python_blocks(REPOSITORY / "README.md")
    run(code, REPOSITORY / "README.md")


def test_usage_shows_the_camera_loop() -> None:
    code = (REPOSITORY / "examples/camera.py").read_text(encoding="utf-8").split('"""\n\n', 1)[1]
    assert code in python_blocks(REPOSITORY / "docs/usage.md")
