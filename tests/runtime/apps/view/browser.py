"""A headless Chromium on a page of the viewer, for tests, measurements and pictures."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = (("chromium", "chromium-browser", "google-chrome", "chrome"), ("chromedriver",))
"""Programs of a browser and of its driver; Debian's packages are chromium and chromium-driver."""


def missing() -> str:
    """Return what a browser needs and this machine lacks; empty if nothing."""
    if not all(map(_find, NAMES)):
        return "needs chromium and chromedriver: apt-get install chromium chromium-driver"
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "needs selenium: pip install selenium"
    return ""


def _find(names: tuple[str, ...]) -> str | None:
    return next((path for name in names if (path := shutil.which(name))), None)


@contextmanager
def open_browser(downloads: Path | None = None, size: tuple[int, int] = (1440, 900)) -> Iterator[Any]:
    """Yield selenium's driver of a window whose page has this size in px."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = _find(NAMES[0]) or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if downloads:
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = webdriver.Chrome(options=options, service=Service(_find(NAMES[1])))
    try:
        resize(driver, *size)
        yield driver
    finally:
        driver.quit()


def resize(driver: Any, width: int, height: int, *, touch: bool = False) -> None:
    """Give the page a size in px."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def set_theme(driver: Any, theme: str) -> None:
    """Make the system's theme light or dark."""
    feature = {"name": "prefers-color-scheme", "value": theme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def wait_for(driver: Any, condition: str, timeout_s: float = 60) -> Any:
    """Wait until a JavaScript expression is true, and return its value."""
    until = time.monotonic() + timeout_s
    while not (value := driver.execute_script(f"return {condition}")):
        if time.monotonic() > until:
            raise TimeoutError(f"never true: {condition}")
        time.sleep(0.02)
    return value


def open_page(driver: Any, url: str) -> None:
    """Open the page and wait for its first picture."""
    driver.get(url)
    wait_for(driver, "document.documentElement.dataset.ready === 'true'")
    wait_for_pictures(driver)


def wait_for_pictures(driver: Any) -> None:
    """Wait until all tiles of what is chosen are drawn."""
    wait_for(driver, "document.documentElement.dataset.drawn === 'true'")


def click_on(driver: Any, pane: int, x: float, y: float) -> None:
    """Click at a place of a picture, in fractions of its pane."""
    move_to(driver, pane, x, y).click().perform()


def move_to(driver: Any, pane: int, x: float, y: float) -> Any:
    """Return actions that move the mouse to a place of a picture, in fractions of its pane."""
    from selenium.webdriver import ActionChains

    canvas = driver.find_element("id", f"canvas-{pane}")
    size = canvas.size
    return ActionChains(driver, duration=0).move_to_element_with_offset(
        canvas, round((x - 0.5) * size["width"]), round((y - 0.5) * size["height"])
    )


def choose(driver: Any, element: str, value: str) -> None:
    """Choose an option of a list by its value."""
    from selenium.webdriver.support.select import Select

    Select(driver.find_element("id", element)).select_by_value(value)


def console_errors(driver: Any) -> list[str]:
    """Return the errors and warnings of the page's console, without those about reading the canvas, as tests do."""
    entries = [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    return [entry["message"] for entry in entries if "willReadFrequently" not in entry["message"]]
