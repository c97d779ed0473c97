"""Measure the viewer in a real browser: its start, the spectrum under the cursor, a change of band, and its memory.

    python tests/runtime/apps/view/measure.py [--side 1024] [--format .npy]

Figures depend on the machine, so this is no test. The cube is 31×side×side and lies in a temporary folder.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

from ccnet.runtime.io.cubes import open_cube
from tests.runtime.apps.view import browser

MOVES, BANDS = 300, 30


def main() -> int:
    """Print the figures; exit code 1 where there is no browser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1024, help="height and width of the cube, px")
    parser.add_argument("--format", default=".npy", help="suffix of the cube's file")
    options = parser.parse_args()
    if reason := browser.missing():
        print(f"skipped: {reason}")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        path = write_cube(Path(folder) / f"cube{options.format}", options.side)
        code = "import sys; from ccnet.runtime.cli.main import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "view", str(path), "--port", "0", "--no-browser"]
        with browser.open_browser() as driver:
            started = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
                try:
                    assert server.stdout is not None
                    url = server.stdout.readline().split()[0]
                    print(f"start: {time.perf_counter() - started:.2f} s until the address is printed")
                    browser.open_page(driver, url)
                    print(f"start: {time.perf_counter() - started:.2f} s until the first picture is drawn")
                    report("spectrum under the cursor", spectrum_times(driver))
                    report("change of band", band_times(driver))
                    print(f"memory of the server: {resident_mb(server.pid):.0f} MB")
                finally:
                    server.terminate()
    return 0


def write_cube(path: Path, side: int) -> Path:
    """Write a cube of smooth noise, 64 rows at a time."""
    rng = np.random.default_rng(0)
    with open_cube(path, side, side) as writer:
        for top in range(0, side, 64):
            writer.write(top, rng.random((31, min(64, side - top), side), np.float32))
    return path


def spectrum_times(driver: Any) -> list[float]:
    """Return times, ms, from a move of the mouse to the drawn spectrum, at places all over the cube."""
    rng = np.random.default_rng(1)
    for count in range(MOVES):
        browser.move_to(driver, 0, *rng.uniform(0.3, 0.7, 2)).perform()
        browser.wait_for(driver, f"performance.getEntriesByName('spectrum').length > {count}")
    return list(driver.execute_script("return performance.getEntriesByName('spectrum').map((each) => each.duration)"))


def band_times(driver: Any) -> list[float]:
    """Return times, ms, from a new band to all of its tiles on the canvas."""
    browser.choose(driver, "kind", "band")
    browser.wait_for_pictures(driver)
    script = """
        const [band, done] = arguments;
        const start = performance.now();
        const slider = document.getElementById("band");
        slider.value = band;
        slider.dispatchEvent(new Event("input"));
        const look = () => (document.documentElement.dataset.drawn === "true" ? done(performance.now() - start)
          : requestAnimationFrame(look));
        requestAnimationFrame(look);
    """
    return [driver.execute_async_script(script, band) for band in range(BANDS)]


def report(name: str, times: list[float]) -> None:
    """Print median, 95th percentile and maximum of times in ms."""
    p95 = statistics.quantiles(times, n=20)[-1]
    print(
        f"{name}: median {statistics.median(times):.1f} ms, p95 {p95:.1f} ms, max {max(times):.1f} ms, n {len(times)}"
    )


def resident_mb(pid: int) -> float:
    """Return the memory of a process that no file backs, MB (Linux)."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("RssAnon"))) / 1e3


if __name__ == "__main__":
    sys.exit(main())
