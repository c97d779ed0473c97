"""The page in a real browser: what it shows, by mouse, keys and fingers, and whether everybody can read it."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.runtime.apps.view.layers import Layer, tile_numbers
from ccnet.runtime.apps.view.server import ViewServer
from ccnet.runtime.io.formats.mapped_cube import Selection

from . import browser
from .scenes import HEIGHT, WIDTH, scene

pytestmark = [pytest.mark.skipif(bool(browser.missing()), reason=browser.missing()), pytest.mark.slow]

SCENE = scene()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ViewServer(SCENE, 0) as server:
        server.start()
        yield server.url


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser.open_browser(tmp_path_factory.mktemp("downloads")) as driver:
        driver.downloads = tmp_path_factory.getbasetemp() / "downloads0"
        yield driver


@pytest.fixture
def page(chromium: Any, url: str) -> Iterator[Any]:
    browser.resize(chromium, 1440, 900)
    browser.set_theme(chromium, "light")
    browser.open_page(chromium, url)
    yield chromium
    assert browser.console_errors(chromium) == []


def text(page: Any, element: str) -> str:
    return str(page.find_element("id", element).text)


def press(page: Any, *keys: str) -> None:
    page.find_element("id", "canvas-0").send_keys(*keys)


def read_out(page: Any) -> tuple[int, int]:
    """Return column and row of the cursor, as the page says them."""
    words = text(page, "readout").replace(",", "").split()
    return int(words[1]), int(words[3])


def pixel(page: Any, x: int, y: int) -> list[int]:
    """Return the colour of a pixel of the cube, read from the canvas of picture A."""
    script = f"""
        const canvas = document.getElementById("canvas-0");
        const scale = Math.min(canvas.width / {WIDTH}, canvas.height / {HEIGHT});
        const [left, top] = [(canvas.width - {WIDTH} * scale) / 2, (canvas.height - {HEIGHT} * scale) / 2];
        const at = [left + ({x} + .5) * scale, top + ({y} + .5) * scale].map(Math.floor);
        return [...canvas.getContext("2d").getImageData(...at, 1, 1).data].slice(0, 3)"""
    return list(page.execute_script(script))


def test_canvas_shows_the_values(page: Any) -> None:
    assert "a.hdr" in text(page, "summary") and page.title.startswith("a.hdr")
    browser.choose(page, "kind", "band")
    browser.wait_for_pictures(page)
    page.execute_script("document.getElementById('band').value = 7")
    page.execute_script("document.getElementById('band').dispatchEvent(new Event('input'))")
    time.sleep(0.3)
    browser.wait_for_pictures(page)
    low, high = (float(field.get_attribute("value")) for field in page.find_elements("css selector", ".limits input"))
    for x, y in ((40, 60), (200, 130), (260, 290)):
        value = SCENE.cubes[0].cube.read([7], Selection(y, y + 1), Selection(x, x + 1))[0, 0, 0]
        expected = 255 * np.clip((value - low) / (high - low), 0, 1)
        np.testing.assert_allclose(pixel(page, x, y), 3 * [expected], atol=2)


def test_spectrum_follows_the_mouse_and_can_be_exported(page: Any) -> None:
    browser.move_to(page, 0, 0.5, 0.5).perform()
    browser.wait_for(page, "document.querySelector('#chart .cursor')")
    first = read_out(page)
    browser.click_on(page, 0, 0.6, 0.4)
    browser.wait_for(page, "document.querySelectorAll('#pins tbody tr').length === 1")
    second = read_out(page)
    assert second[0] > first[0] and second[1] < first[1]
    browser.click_on(page, 0, 0.45, 0.7)
    browser.wait_for(page, "document.querySelectorAll('#pins tbody tr').length === 2")
    page.find_element("id", "export").click()
    file = Path(page.downloads) / "spectra.csv"
    until = time.monotonic() + 60  # as long as for the page itself: 5 s are short on a machine that does other work
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.05)
    rows = list(csv.reader(file.open(encoding="utf-8")))
    assert rows[0][0] == "wavelength_nm" and rows[0][1] == f"a.hdr ({second[0]} {second[1]})"
    assert [row[0] for row in rows[1:]] == [str(nm) for nm in range(400, 701, 10)]
    x, y = second
    stored = SCENE.cubes[0].cube.read(range(31), Selection(y, y + 1), Selection(x, x + 1))[:, 0, 0]
    np.testing.assert_allclose([float(row[1]) for row in rows[1:]], stored, rtol=1e-6)
    page.find_element("id", "clear").click()
    assert not page.find_element("id", "pins").is_displayed()


def test_keys_do_all_that_the_mouse_does(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    press(page, Keys.ARROW_RIGHT)
    browser.wait_for(page, "document.querySelector('#chart .cursor')")
    corners = page.execute_script("return document.querySelector('#chart .interval').points.length")
    assert corners == 2 * 31  # the predicted error above and below the spectrum
    start = read_out(page)
    press(page, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.SHIFT + Keys.ARROW_DOWN + Keys.NULL)
    browser.wait_for(page, f"document.getElementById('readout').textContent.includes('row {start[1] + 11}')")
    assert read_out(page) == (start[0] + 1, start[1] + 11)
    press(page, "p")
    browser.wait_for(page, "document.querySelectorAll('#pins tbody tr').length === 1")
    press(page, ".")
    browser.wait_for(page, "document.getElementById('kind').value === 'band'")
    browser.wait_for(page, "document.getElementById('spoken').textContent === 'Band 560 nm'")
    press(page, "s")
    browser.wait_for(page, "document.getElementById('pane-1').hidden")
    press(page, "?")
    assert page.find_element("id", "help").is_displayed()


def test_two_cubes_are_compared(page: Any) -> None:
    assert page.find_element("id", "pane-1").is_displayed()
    browser.choose(page, "kind", "mrae")
    browser.wait_for_pictures(page)
    browser.wait_for(page, "document.querySelectorAll('#errors-chart .bar').length === 31")
    assert "a.hdr against b.mat: MRAE" in text(page, "errors-text")
    label = page.find_element("id", "errors-chart").get_attribute("aria-label")
    assert label.startswith("MRAE by band, largest at")
    browser.choose(page, "kind", "residual")
    browser.wait_for_pictures(page)
    assert "Reprojection residual" in text(page, "pane-0")


@pytest.mark.parametrize("kind", ["ratio", "index", "signed", "absolute", "mrae", "rmse", "angle"])
def test_number_under_the_cursor_is_that_of_the_map(page: Any, kind: str) -> None:
    browser.choose(page, "kind", kind)
    browser.wait_for_pictures(page)
    browser.move_to(page, 0, 0.5, 0.5).perform()
    browser.wait_for(page, "document.querySelectorAll('#readout b').length >= 5")
    shown = float(page.find_elements("css selector", "#readout b")[-1].text)
    x, y = read_out(page)
    bands = {"ratio": (25, 15), "index": (30, 27), "signed": (15,), "absolute": (15,)}.get(kind, ())
    layer = Layer(kind=kind, other=1, bands=bands)  # type: ignore[arg-type]
    np.testing.assert_allclose(shown, tile_numbers(SCENE, layer, 0, x // 256, y // 256)[y % 256, x % 256], rtol=6e-3)


def test_number_under_the_cursor_follows_the_kind_and_the_band(page: Any) -> None:
    browser.move_to(page, 0, 0.5, 0.5).perform()
    browser.wait_for(page, "document.querySelector('#chart .cursor')")
    x, y = read_out(page)
    first, second = (
        cube.cube.read(range(31), Selection(y, y + 1), Selection(x, x + 1))[:, 0, 0] for cube in SCENE.cubes[:2]
    )

    def shows(number: float, nm: int) -> None:
        words = f"at {nm} nm"
        last = "Number([...document.querySelectorAll('#readout b')].at(-1).textContent)"
        same = f"Math.abs({last} - {number}) <= 6e-3 * Math.abs({number})"
        browser.wait_for(page, f"document.getElementById('readout').textContent.includes('{words}') && {same}")

    browser.choose(page, "kind", "signed")
    shows(first[15] - second[15], 550)
    page.execute_script("document.getElementById('band').value = 7")
    page.execute_script("document.getElementById('band').dispatchEvent(new Event('input'))")
    shows(first[7] - second[7], 470)
    browser.choose(page, "kind", "ratio")
    shows(first[25] / first[15], 650)


def test_fingers_tap_drag_and_pinch(page: Any) -> None:
    browser.resize(page, 420, 860, touch=True)
    page.refresh()
    browser.open_page(page, page.current_url)
    box = page.execute_script("return document.getElementById('canvas-0').getBoundingClientRect().toJSON()")
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind: str, *points: tuple[float, float]) -> None:
        touches = [{"x": at[0], "y": at[1], "id": index} for index, at in enumerate(points)]
        page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    touch("touchStart", (x, y))
    touch("touchEnd")
    browser.wait_for(page, "document.querySelector('#chart .cursor')")
    column, row = read_out(page)
    assert abs(column - WIDTH / 2) < 3 and abs(row - HEIGHT / 2) < 3
    assert not page.find_elements("css selector", "#pins tbody tr")  # a finger pins by a long tap or the button
    touch("touchStart", (x, y))
    touch("touchMove", (x - 60, y))
    touch("touchEnd")
    touch("touchStart", (x, y))
    touch("touchEnd")
    browser.wait_for(page, f"!document.getElementById('readout').textContent.includes('Column {column},')")
    assert read_out(page)[0] > column
    touch("touchStart", (x - 20, y), (x + 20, y))
    touch("touchMove", (x - 80, y), (x + 80, y))
    touch("touchEnd")
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 420])
def test_page_is_accessible(page: Any, theme: str, width: int) -> None:
    pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    browser.set_theme(page, theme)
    browser.resize(page, width, 900)
    browser.choose(page, "kind", "mrae")
    browser.wait_for_pictures(page)
    press(page, "p")
    page.execute_script((resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
    result = page.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    assert len(result["passes"]) > 20
    found = [(each["id"], [node["target"] for node in each["nodes"]]) for each in result["violations"]]
    assert not found, json.dumps(found)
