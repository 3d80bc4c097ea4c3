"""The page about the data, as a reader gets it: every reason and note with its pictures, which open without a network."""

from __future__ import annotations

import re

from assets import artifacts
from tests.report.test_report_stage import Page


def test_it_shows_every_reason_and_note_with_pictures(report):
    html = artifacts.CURATION_PAGE.read_text(encoding="utf-8")
    page = Page(html)
    text = re.sub(r"\s+", " ", "".join(page.text))
    for said in (
        "2 duplicate. Another picture",
        "1 undecodable. No decoder reads it to its end.",
        "1 several frames. It moves",
        "The same pixels: 2",
        "Alike, of one class or of the library: 1",
        "1 of 1 expectations hold",
        "id is never null",
        "it begins with b'no pictu'",
    ):
        assert said in text, said
    images = page.all("img")
    assert len(images) >= 7, "two of each pair, one of the sample"
    assert all((image["src"] or "").startswith("data:image/webp;base64,") and image["alt"] for image in images)
    assert "another &lt;copy&gt;" in html
    assert "no picture to show" in text, "of what does not open"
    assert not re.findall(r"(?:src|href)=\"(?!data:|#|index\.html|https://)", html), "it is one file, linked with the report alone"


def test_the_report_links_to_it(report):
    assert 'href="curation.html"' in artifacts.REPORT_PAGE.read_text(encoding="utf-8")
