"""Draw the viewer's pictures for the documents: ``make pictures``.

A photograph and a strongly compressed copy of it are reconstructed and shown side by side in a headless browser.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

from tests.runtime.apps.view import browser

JPEG_QUALITY = 10
PINS = ((0.30, 0.52), (0.53, 0.30), (0.72, 0.75))


def main() -> int:
    """Write the pictures; exit code 0 also where there is no browser, with the reason."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frame", type=Path)
    parser.add_argument("--artifacts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if reason := browser.missing():
        print(f"skipped: {reason}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"{options.frame.stem}-q{JPEG_QUALITY}.jpg"
        Image.open(options.frame).convert("RGB").save(copy, quality=JPEG_QUALITY)
        with served(options.frame, copy, "--artifacts", options.artifacts) as url, browser.open_browser() as driver:
            draw(driver, url, options.out)
    return 0


@contextmanager
def served(*arguments: object) -> Iterator[str]:
    """Run ``ccnet view``, and yield its address."""
    code = "import sys; from ccnet.runtime.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "view", *map(str, arguments), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            if not (line := server.stdout.readline()):
                raise SystemExit(2)  # it said why
            yield line.split()[0]
        finally:
            server.terminate()


def draw(driver: Any, url: str, out: Path) -> None:
    """Write view.png, view-errors.png and view-phone.png."""
    browser.set_theme(driver, "light")
    browser.resize(driver, 1280, 860)
    browser.open_page(driver, url)
    choose_pane(driver, 1)
    choose_cube_and_kind(driver, "0", "ratio")
    pin(driver)
    save(driver, out / "view.png")

    browser.set_theme(driver, "dark")
    choose_pane(driver, 1)
    choose_cube_and_kind(driver, "0", "mrae")
    choose_pane(driver, 0)
    choose_cube_and_kind(driver, "0", "residual")
    driver.find_element("id", "clear").click()
    browser.wait_for(driver, "document.querySelectorAll('#errors-chart .bar').length")
    browser.resize(driver, 1280, 960)
    save(driver, out / "view-errors.png")

    browser.resize(driver, 412, 870, touch=True)
    browser.set_theme(driver, "light")
    browser.open_page(driver, url)
    driver.find_element("id", "split").click()
    browser.wait_for_pictures(driver)
    pin(driver)
    save(driver, out / "view-phone.png")


def choose_pane(driver: Any, pane: int) -> None:
    """Make a picture the one that the controls change."""
    driver.find_element("id", "pane-choice").find_elements("tag name", "input")[pane].click()
    time.sleep(0.3)


def choose_cube_and_kind(driver: Any, cube: str, kind: str) -> None:
    """Choose what the active picture shows, and wait for it."""
    browser.choose(driver, "cube", cube)
    browser.choose(driver, "kind", kind)
    time.sleep(0.3)
    browser.wait_for_pictures(driver)


def pin(driver: Any) -> None:
    """Pin spectra, and leave the cursor elsewhere."""
    for count, place in enumerate(PINS):
        browser.click_on(driver, 0, *place)
        browser.wait_for(driver, f"document.querySelectorAll('#pins tbody tr').length === {count + 1}")
    browser.move_to(driver, 0, 0.62, 0.62).perform()
    time.sleep(0.5)


def save(driver: Any, path: Path) -> None:
    """Write a screenshot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time.sleep(0.5)
    driver.save_screenshot(str(path))
    with Image.open(path) as image:
        image.convert("RGB").save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    sys.exit(main())
