"""The page's script in a real browser: what a reader chooses, points at, types and sees, and that nothing goes wrong in the console."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from assets import artifacts
from tests import chromium

pytestmark = chromium.needed

VISIBLE = "[...document.querySelectorAll('{}')].filter(e => e.offsetParent !== null)"
DRAWN = "document.querySelector('canvas.plane').toDataURL()"
TIP = "document.querySelector('.map .tip')"


class Reader:
    """A window on the finished report."""

    def __init__(self, page: chromium.Page) -> None:
        self.page = page

    def ask(self, script: str) -> Any:
        return self.page.evaluate(script)

    def ids(self, selector: str) -> list[str]:
        """Of the elements that can be seen."""
        return self.ask(f"{VISIBLE.format(selector)}.map(e => e.id)")

    def until(self, script: str) -> None:
        deadline = time.monotonic() + 20
        while not self.ask(script):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.05)

    def click(self, selector: str, number: int = 0) -> None:
        """With the mouse, as a reader does: what lies over the element would take the click."""
        element = f"{VISIBLE.format(selector)}[{number}]"
        self.ask(f"{element}.scrollIntoView({{block: 'center'}})")
        x, y = self.ask(f"(() => {{ const b = {element}.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }})()")
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.page.point(x, y, kind)

    def pressed(self, selector: str) -> list[str]:
        """The texts of the buttons that are switched on."""
        return self.ask(f"[...document.querySelectorAll('{selector}[aria-pressed=true]')].map(e => e.textContent.trim())")

    def place(self, point: int) -> tuple[float, float]:
        """Where in the window a point of the unzoomed map is drawn, in the last space."""
        data = self.data()
        x, y, left, above, width, height = self.ask(
            "(() => { const b = document.querySelector('canvas.plane').getBoundingClientRect();"
            f" const p = {json.dumps(data['points'][point][2:4])}; return [...p, b.x, b.y, b.width, b.height]; }})()"
        )
        margin, extent = 22, data["extent"]
        return left + margin + x / extent * (width - 2 * margin), above + margin + y / extent * (height - 2 * margin)

    def data(self) -> dict[str, Any]:
        return json.loads(self.ask("document.querySelector('.map script').textContent"))


@pytest.fixture(scope="module")
def window(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.page(tmp_path_factory.mktemp("browser"), width=1200, height=900) as page:
        yield page


@pytest.fixture
def reader(window: chromium.Page, finished_run: Path) -> Iterator[Reader]:
    """The page freshly opened, its pictures loaded, without animations; at the end the console must be empty."""
    window.complaints.clear()
    window.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    window.open((finished_run / artifacts.REPORT_PAGE).as_uri())
    found = Reader(window)
    found.until("document.readyState === 'complete' && !!document.querySelector('canvas.plane')?.width")
    found.ask("document.querySelector('canvas.plane').scrollIntoView({block: 'center'})")
    yield found
    assert window.complaints == []


def test_one_query_of_one_set_is_shown_and_a_click_shows_another(reader):
    assert reader.ids(".query") == ["query-1-1"]
    reader.click(".chooser a", 1)
    assert reader.ids(".query") == ["query-1-2"]
    current = "[...document.querySelectorAll('.set:not([hidden]) .chooser a')].map(e => e.getAttribute('aria-current'))"
    assert reader.ask(current) == ["false", "true", "false"]
    assert not reader.ask("location.hash")  # the page did not jump


def test_tabs_switch_between_pictures_words_and_the_worst(reader):
    tabs = reader.ask("[...document.querySelectorAll('.switch button')].map(e => e.textContent)")
    assert tabs == ["Pictures", "Words", "Worst pictures", "Worst words"]
    for number, tab in enumerate(tabs):
        reader.click(".switch button", number)
        assert reader.pressed(".switch button") == [tab]
        assert reader.ids(".query") == [f"query-{number + 1}-1"]


def test_arrow_keys_go_from_query_to_query_and_stop_at_the_ends(reader):
    reader.ask("document.querySelector('.chooser a').focus()")
    for key, shown in (("ArrowLeft", 1), ("ArrowRight", 2), ("ArrowRight", 3), ("ArrowRight", 3), ("ArrowLeft", 2)):
        reader.page.press(key)
        assert reader.ids(".query") == [f"query-1-{shown}"], key


def test_without_the_script_every_query_is_there(window, finished_run):
    window.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        window.open((finished_run / artifacts.REPORT_PAGE).as_uri())
        reader = Reader(window)
        reader.until("document.readyState === 'complete'")
        assert len(reader.ids(".query")) == 3 + 3 + 2 + 2
        assert "which your browser does not run" in window.text()
    finally:
        window.call("Emulation.setScriptExecutionDisabled", value=False)


def test_the_map_is_drawn_in_the_published_space_and_another_can_be_chosen(reader):
    assert reader.pressed("[data-space]") == ["mcip_rea"]
    before = reader.ask(DRAWN)
    assert len(before) > 2000  # more than an empty canvas
    reader.click("[data-space]", 0)
    assert reader.pressed("[data-space]") == ["base"]
    reader.until(f"{DRAWN} !== {json.dumps(before)}")
    reader.click("[data-space]", 1)
    assert reader.pressed("[data-space]") == ["mcip_rea"]
    reader.ask("document.querySelector('canvas.plane').blur()")
    reader.page.point(2, 2)
    reader.until(f"{DRAWN} === {json.dumps(before)}")


def test_pointing_at_an_image_names_it_and_leaving_hides_the_name(reader):
    data = reader.data()
    assert reader.ask(f"{TIP}.hidden")
    reader.page.point(*reader.place(0))
    reader.until(f"!{TIP}.hidden")
    name = reader.ask(f"{TIP}.querySelector('b').textContent")
    assert name in {each[0] for each in data["classes"]}
    assert "4 of its class here" in reader.ask(f"{TIP}.querySelector('span').textContent")
    inside = f"(() => {{ const t = {TIP}.getBoundingClientRect(), s = document.querySelector('.stage').getBoundingClientRect();"
    assert reader.ask(f"{inside} return t.left >= s.left && t.right <= s.right && t.top >= s.top && t.bottom <= s.bottom; }})()")
    reader.page.point(2, 2)
    reader.until(f"{TIP}.hidden")


def test_the_keyboard_alone_reads_the_map(reader):
    reader.ask("document.querySelector('canvas.plane').focus()")
    reader.page.press("ArrowRight")
    first = reader.ask(f"{TIP}.textContent")
    assert not reader.ask(f"{TIP}.hidden")
    visited = set()
    for key in ("ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown") * 3:
        reader.page.press(key)
        visited.add(reader.ask(f"{TIP}.style.left + {TIP}.style.top"))
    assert first
    assert len(visited) > 1
    unzoomed = reader.ask(DRAWN)
    reader.page.press("+")
    assert reader.ask(DRAWN) != unzoomed
    reader.page.press("Escape")
    assert reader.ask(f"{TIP}.hidden")


def test_dots_become_pictures_and_zooming_moves_them_apart(reader):
    dots = reader.ask(DRAWN)
    reader.click("[data-look]", 1)
    assert reader.pressed("[data-look]") == ["pictures"]
    pictures = reader.ask(DRAWN)
    assert pictures != dots
    reader.click("[data-zoom]", 0)
    assert reader.ask(DRAWN) != pictures
    reader.click("[data-zoom]", 1)
    assert reader.ask(DRAWN) == pictures


def test_a_group_is_singled_out_and_let_go(reader):
    every = reader.ask(DRAWN)
    reader.click("[data-group]", 0)
    assert reader.pressed("[data-group]") == [reader.data()["groups"][0]]
    assert reader.ask(DRAWN) != every
    reader.click("[data-group]", 0)
    assert reader.pressed("[data-group]") == []
    assert reader.ask(DRAWN) == every


def test_a_class_is_found_by_a_part_of_its_name(reader):
    names = [each[0] for each in reader.data()["classes"]]
    every = reader.ask(DRAWN)
    reader.click(".find input")
    reader.page.call("Input.insertText", text="DISC")
    assert reader.ask("document.querySelector('.find output').textContent") == f"{sum('disc' in name for name in names)} classes"
    assert reader.ask(DRAWN) != every
    reader.ask("document.querySelector('.find input').select()")
    reader.page.call("Input.insertText", text="no such class")
    assert reader.ask("document.querySelector('.find output').textContent") == "0 classes"


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_window_needs_no_sideways_scrolling(reader, dark):
    page = reader.page
    page.call("Emulation.setDeviceMetricsOverride", width=375, height=800, deviceScaleFactor=2, mobile=True)
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
    try:
        reader.until("document.documentElement.clientWidth <= 375 && document.querySelector('canvas.plane').clientWidth < 375")
        assert reader.ask("document.documentElement.scrollWidth") <= 375
    finally:
        page.call("Emulation.setDeviceMetricsOverride", width=1200, height=900, deviceScaleFactor=1, mobile=False)
