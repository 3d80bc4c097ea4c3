"""The stage from its inputs to its files, and the page as a reader gets it."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assets import artifacts, params
from assets.errors import UserError
from assets.promotion.stage import judge_recipes
from assets.report.stage import make_report
from tests.measured_run import ABOUT, RECIPES, crown, write_measured

VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """Every element with its attributes; fails on tags that do not nest."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def html(report: Path) -> str:
    return artifacts.REPORT_PAGE.read_text(encoding="utf-8")


@pytest.fixture
def page(html: str) -> Page:
    return Page(html)


def draw(settings: params.Report, promotion: params.Promotion, recipe: str) -> None:
    """Judge and draw, as the two stages do."""
    asked = promotion.model_copy(update={"recipe": recipe})
    judge_recipes(asked, RECIPES)
    make_report(settings, asked, ABOUT, RECIPES)


def everything(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_it_writes_what_the_stages_table_declares(report):
    assert sorted(everything(report)) == [
        "curation.html",
        "index.html",
        "plots/before_after_images.png",
        "plots/before_after_texts.png",
        "plots/loss.png",
        "plots/similarity.png",
        "report.md",
    ]


def test_the_same_inputs_give_the_same_bytes(finished_run, inputs, settings, promotion):
    before = everything(finished_run / artifacts.REPORT)
    inputs()
    draw(settings, promotion, "mcip_rea")
    after = everything(artifacts.REPORT)
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == []


def test_the_page_has_every_section_and_reads_well_nested(page):
    sections = [attributes["id"] for attributes in page.all("section")]
    before = ["recipes", "changes", "map", "queries", "health", "benchmarks", "training", "data"]
    assert sections == [*before, "siblings", "provenance", "credits"]
    assert "groups" in [attributes.get("id") for attributes in page.all("h3")]
    linked = {attributes["href"] for attributes in page.all("a") if (attributes["href"] or "").startswith("#")}
    assert {f"#{section}" for section in sections} <= linked
    anchors = {f"#{attributes['id']}" for _, attributes in page.elements if attributes.get("id")}
    assert linked <= anchors


def test_headings_come_in_order_and_every_table_says_what_its_cells_are_of(page):
    levels = [int(tag[1]) for tag, _ in page.elements if tag in {"h1", "h2", "h3", "h4"}]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(attributes.get("scope") in {"row", "col", "colgroup"} for attributes in page.all("th"))
    boxes = [attributes for attributes in page.all("div") if attributes.get("class") == "scroll"]
    assert len(boxes) == len(page.all("table"))
    assert all(attributes.get("tabindex") == "0" and attributes.get("aria-label") for attributes in boxes)


def test_the_decision_and_all_values_stand_on_the_page(page):
    text = " ".join(page.text)
    assert "mcip_rea is better than base on" in text
    for row in artifacts.read_json(artifacts.METRICS)["rows"]:
        for value in (row["image_to_image"]["map"], row["average"], row["text_to_image"]["caption_recall_at_5"]):
            assert f"{value:.1f}" in text
    for group in ("shapes", "discs"):
        assert group in text


def test_nothing_is_fetched(page, html):
    for tag, attributes in page.elements:
        assert tag not in {"iframe", "object", "embed", "form"}
        assert tag != "script" or "src" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "srcset", "href", "xlink:href", "poster", "data", "action"):
            address = attributes.get(name) or "#"
            assert address.startswith(("#", "data:")) or (
                tag == "a" and name == "href" and address.startswith(("https://", "curation.html"))
            ), (tag, address)
    assert not re.search(r"@import|url\((?!#)|\bfetch\(|XMLHttpRequest|\bimport\(", html)
    assert len(html.encode()) < 15_000_000


def test_every_picture_has_words_and_is_a_picture(page):
    pictures = page.all("img")
    (sheet,) = [attributes for attributes in pictures if attributes.get("class") == "sheet"]
    assert "hidden" in sheet
    pictures.remove(sheet)
    # two strips of 4 for 3 drawn and 2 worst queries of images and of texts; a query picture and one to choose it by for the images;
    # 4 of each class that gained or lost; two pairs of a test picture and the training picture nearest to it
    classes = len([attributes for attributes in page.all("li") if attributes.get("class") == "class"])
    assert 1 <= classes <= 4
    assert len(pictures) == 2 * (3 + 2) * 2 * 4 + 2 * (3 + 2) + 4 * classes + 2 * 2
    for attributes in pictures:
        assert attributes["alt"]
        assert attributes["title"]
        data = base64.b64decode((attributes["src"] or "").removeprefix("data:image/webp;base64,"))
        assert Image.open(io.BytesIO(data)).size[0] <= 112
    drawn = [attributes for attributes in page.all("div") if attributes.get("role") == "img"]
    assert drawn
    assert all(attributes["aria-label"] for attributes in drawn)


def test_right_and_wrong_differ_by_word_mark_and_frame(page, html):
    for right, mark in (("right", "✓"), ("wrong", "✕")):
        tiles = re.findall(rf'<li class="tile {right}"><img [^>]*alt="(\w+): [^>]*><i aria-hidden="true">(.)</i>', html)
        assert tiles
        assert set(tiles) == {(right, mark)}
    assert re.search(r"\.wrong \{[^}]*border-style: dashed", html)


def test_credit_stands_beside_the_pictures_and_in_the_list(page, html):
    cards = re.findall(r'<article class="card query" id="query-\d-\d">.*?</article>', html, re.DOTALL)
    assert len(cards) == 3 + 3 + 2 + 2
    for card in cards:
        shown = set(re.findall(r"picture by (\w+)", card))
        credit = re.search(r'<p class="credit">(.*?)</p>', card, re.DOTALL)
        assert shown
        assert credit
        assert shown == set(re.findall(r"(alpha|beta) \(", credit[1]))
    assert 'Alpha Set by Ann, <a href="https://example.org/alpha"' in html
    assert 'href="https://creativecommons.org/licenses/by-sa/4.0/"' in html
    assert "Bob &amp; Co" in html
    assert "passed on under it as well" in html


def test_the_map_has_every_image_once_in_each_space(html):
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)[1])
    assert data["spaces"] == ["base", "mcip_rea"]
    assert len(data["points"]) == 16  # four whole classes
    assert len(data["classes"]) == 4
    assert all(data["groups"][group] == ("discs" if "disc" in name else "shapes") for name, group in data["classes"])
    assert all(0 <= place <= data["extent"] for point in data["points"] for place in point[:4])
    sheet = re.search(r'<img class="sheet" src="data:image/webp;base64,([^"]+)"', html)[1]
    assert Image.open(io.BytesIO(base64.b64decode(sheet))).size == (4 * 64, 4 * 64)


def test_the_markdown_says_the_same_as_the_page(report, page):
    markdown = artifacts.REPORT_MARKDOWN.read_text(encoding="utf-8")
    verdict = artifacts.read_json(artifacts.VERDICT)
    (title,) = re.findall(r"^# (.*)$", markdown, re.MULTILINE)
    assert title.endswith(f": {verdict['decision']}")
    assert title in " ".join(page.text)
    for row in artifacts.read_json(artifacts.METRICS)["rows"]:
        assert re.search(rf"^\| \**{row['recipe']}\** \| {row['image_to_image']['map']:.1f}", markdown, re.MULTILINE)
    for table in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line.rstrip())) for line in table.splitlines()}) == 1, table
    assert "None of its benchmarks was measured." in markdown
    assert "39 images read, 36 kept, 3 rejected: duplicate 2, undecodable 1." in markdown


def test_words_that_the_base_cannot_read_are_reported(report, page):
    text = " ".join("".join(page.text).split())
    assert "class names: 8, of their tokens 0.0 % unknown. All are read and told apart." in text
    assert "captions: 1,900, of their tokens 37.5 % unknown. 950 captions <b>|</b> …" in text
    markdown = artifacts.REPORT_MARKDOWN.read_text(encoding="utf-8")
    assert "\nClass names: 8, of their tokens 0.0 % unknown.\n" in markdown
    assert "\nCaptions: 1,900, of their tokens 37.5 % unknown. 950 captions \\<b\\>\\|\\</b\\> …\n" in markdown


def test_what_the_pictures_cannot_show_stands_at_the_top(inputs, settings, promotion):
    """A folder of few classes came out as ties, and nothing said that no other result was possible."""
    inputs(groups=False, captions=False, validation=False)
    draw(settings, promotion, "gpr")
    text = "".join(Page(artifacts.REPORT_PAGE.read_text(encoding="utf-8")).text)
    markdown = artifacts.REPORT_MARKDOWN.read_text(encoding="utf-8")
    head = text[: text.index("The recipes side by side")]
    for said in ("what captions add: the pictures have none", "of these none validate, and fewer than 10 are too few"):
        assert said in head
        assert said in markdown


def test_names_are_shown_as_they_are(page, html):
    assert "<b>blue</b>" not in html
    assert "<b>blue</b> & 'square'" in "".join(page.text)
    markdown = artifacts.REPORT_MARKDOWN.read_text(encoding="utf-8")
    assert "<b>" not in markdown.replace("\\<b\\>", "")


def test_the_pictures_of_the_readme_are_small_and_carry_no_metadata(report):
    for path in sorted((report / "plots").iterdir()):
        assert path.stat().st_size < 400_000
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert picture.width >= 800
            assert not {"Software", "Creation Time", "date"} & picture.info.keys()


def test_the_dark_page_takes_its_own_colours_in_the_drawings(html):
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) > 8
    assert not [color for color in re.findall(r"#[0-9a-fA-F]{6}\b", " ".join(drawings)) if color != "#000000"]
    assert "prefers-color-scheme: dark" in html


def test_a_user_s_pictures_without_groups_captions_or_validation(inputs, settings, promotion):
    inputs(groups=False, captions=False, validation=False)
    draw(settings, promotion, "gpr")
    page = Page(artifacts.REPORT_PAGE.read_text(encoding="utf-8"))
    assert "groups" not in [attributes.get("id") for _, attributes in page.elements]
    assert "no validation images" in "".join(page.text)


def test_a_picture_in_which_a_model_sees_nothing_is_shown_like_any_other(inputs, settings, promotion):
    inputs()
    images, texts = (np.load(artifacts.evaluation_dir("gpr") / f"{kind}_embeddings.npy") for kind in ("image", "text"))
    images[[0, 5]] = 0
    write_measured("gpr", images, texts[:6], texts[6:])
    draw(settings, promotion, "gpr")
    html = artifacts.REPORT_PAGE.read_text(encoding="utf-8")
    assert not re.search(r"\b(nan|inf)\b", "".join(Page(html).text).lower())


def test_what_was_measured_of_the_paper_s_table_stands_beside_it(inputs, settings, promotion):
    inputs()
    measured = {"image_to_image": {"gpr1200": 71.25, "instre": None}, "knn": {}, "zero_shot": {}, "text_to_image": {}, "average": None}
    found = {"benchmarks": {}, "skipped": {"instre": "not there"}, "incomplete": {"gpr1200": "8 of 12000 images"}, "table_1": measured}
    artifacts.write_json(artifacts.evaluation_dir("mcip") / "benchmarks.json", found)
    draw(settings, promotion, "mcip_rea")
    markdown = artifacts.REPORT_MARKDOWN.read_text(encoding="utf-8")
    assert "| base, paper | 76.0 |" in markdown
    assert "68.4, is not the mean of its columns" in markdown
    assert "| **mcip**, here | 71.2 | not measured | not measured |" in markdown
    assert "| mcip, paper | 87.0 | 84.8 | 88.0 |" in markdown
    assert "Not there and skipped: instre." in markdown
    text = " ".join(Page(artifacts.REPORT_PAGE.read_text(encoding="utf-8")).text)
    assert "8 of 12000 images" in text
    assert "measured here" in text


def test_settings_are_compared_with_those_of_a_champion_that_keeps_them(inputs, settings, promotion):
    inputs()
    told = crown("gpr")
    changed = {"image_tower.lr": 3e-4, "image_tower.epochs": 7, "evaluation.knn_k": 21}
    artifacts.write_json(artifacts.CHAMPION, told | {"settings": told["settings"] | changed})
    draw(settings, promotion, "gpr")
    markdown = artifacts.REPORT_MARKDOWN.read_text(encoding="utf-8")
    table = re.search(r"^\| setting \|.*\n(?:\|.*\n)+", markdown, re.MULTILINE)[0]
    assert re.findall(r"`(\S+)` \| (\S+) \| (\S+)", table) == [
        ("image_tower.lr", "0.0003", "0.0001"),
        ("evaluation.knn_k", "21", "3"),
        ("image_tower.epochs", "7", "–"),
    ]


def test_what_is_new_since_the_last_publish_is_shown_beside_what_was_accepted(inputs, settings, promotion):
    inputs()
    limits = {"warn": 0.2, "block": None}
    rows = [
        {"measure": "rejected", "name": "rejected", "accepted": 0.01, "new": 0.25, "share": 0.25, "outcome": "warn"} | limits,
        {"measure": "sizes", "name": "shorter side, pixels", "accepted": 96.0, "new": 48.5, "share": 0.1, "outcome": "clear"} | limits,
        {"measure": "unlike", "name": "difference", "accepted": None, "new": None, "share": None, "outcome": "clear"} | limits,
    ]
    artifacts.write_json(artifacts.DROP, {"decision": "warn", "name": "abc", "accepted": 1200, "new": 30, "rejected": 10, "rows": rows})
    few = settings.model_copy(update={"queries": 1, "worst_failures": 1})
    draw(few, promotion, "mcip_rea")
    markdown = artifacts.REPORT_MARKDOWN.read_text(encoding="utf-8")
    assert "New since the last publish: 30 pictures and 10 rejected ones (drop abc), beside 1,200 accepted before." in markdown
    assert "| rejected | 1 % | 25 % | 25 % | warn 20 % | unusual |" in markdown
    assert "| shorter side, pixels | 96 | 48.5 | 10 % | warn 20 % |  |" in markdown
    assert "| difference | – | – | – | warn 20 % |  |" in markdown
    text = " ".join(Page(artifacts.REPORT_PAGE.read_text(encoding="utf-8")).text)
    assert "What was new since the last publish" in text and "unusual" in text


def test_base_itself_can_be_the_published_recipe(inputs, settings, promotion):
    inputs()
    draw(settings, promotion, "base")
    html = artifacts.REPORT_PAGE.read_text(encoding="utf-8")
    assert "base is level with base on all 4 families: publish" in "".join(Page(html).text)
    assert json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)[1])["spaces"] == ["base"]
    assert len(list(artifacts.PLOTS.glob("*.png"))) == 4


def test_any_recipes_in_any_order(inputs, settings, promotion):
    """Rows come from params.yaml: a recipe without a row in the paper, with an order and words of its own."""
    inputs()
    for path in (artifacts.EVALUATION, artifacts.MODELS):
        (path / "gpr").rename(path / "wide")
    evaluated = artifacts.evaluation_dir("wide") / "metrics.json"
    artifacts.write_json(evaluated, artifacts.read_json(evaluated) | {"recipe": "wide"})
    made_with = evaluated.with_name("made_with.json")
    artifacts.write_json(made_with, artifacts.read_json(made_with) | {"recipe": "wide"})
    measured = ["wide", "base"]
    judge_recipes(promotion.model_copy(update={"recipe": "wide", "pairs": []}), measured)
    about = {"base": "the start", "wide": "a wider margin", "mcip": "trained, not measured"}
    make_report(settings, promotion.model_copy(update={"recipe": "wide", "pairs": []}), about, measured)
    text = "".join(Page(artifacts.REPORT_PAGE.read_text(encoding="utf-8")).text)
    assert "a wider margin" in text
    assert "trained, not measured" in text  # among the trainings
    markdown = artifacts.REPORT_MARKDOWN.read_text(encoding="utf-8")
    table = markdown.partition("## Recipes")[2].partition("##")[0]
    assert re.findall(r"^\| \**(\w+)\** \| \d", table, re.MULTILINE) == measured
    assert "gpr" not in text


def test_a_promotion_of_other_recipes_is_not_drawn(inputs, settings, promotion):
    """After an edit of params.yaml by hand, the page must not show yesterday's rows under today's names."""
    inputs()
    judge_recipes(promotion, RECIPES)
    for asked, measured in ((promotion, RECIPES[::-1]), (promotion.model_copy(update={"recipe": "gpr"}), RECIPES)):
        with pytest.raises(UserError, match="dvc repro promotion"):
            make_report(settings, asked, ABOUT, measured)
    assert not artifacts.REPORT.exists()


def test_models_are_not_read(inputs, settings, promotion):
    """Only base's card: a report over models on another machine's disk needs no checkout of them."""
    inputs()
    judge_recipes(promotion, RECIPES)
    for recipe in RECIPES[1:]:
        shutil.rmtree(artifacts.model_dir(recipe))
    make_report(settings, promotion, ABOUT, RECIPES)
    made_with = artifacts.read_json(artifacts.evaluation_dir("gpr") / "made_with.json")
    assert made_with["model_sha256"] in artifacts.REPORT_MARKDOWN.read_text(encoding="utf-8")


def test_a_recipe_that_fell_is_held_back_at_the_top_of_the_page(inputs, settings, promotion):
    inputs()
    few = settings.model_copy(update={"queries": 1, "worst_failures": 1})
    told = crown("gpr_rea")
    artifacts.write_json(artifacts.CHAMPION, {name: told[name] for name in ("recipe", "model_sha256")})
    draw(few, promotion.model_copy(update={"against": "champion"}), "base")
    verdict = artifacts.read_json(artifacts.VERDICT)
    assert (verdict["decision"], verdict["against"]) == ("hold", "champion")
    text = "".join(Page(artifacts.REPORT_PAGE.read_text(encoding="utf-8")).text)
    assert verdict["families"]["knn"]["outcome"] == "worse"
    assert re.search(r"base is .*worse (on|than the champion \(gpr_rea\) on) .*k-NN.*: hold", text)
    assert "The champion, gpr_rea, keeps no record of its settings." in text
