"""The report stage: from the evaluations to the five rows, the verdict, the plots and the page. Measuring is evaluation's."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from assets import artifacts, params
from assets.artifacts import RECIPES
from assets.metrics import PairedDifference
from assets.report import comparison, examples, page, plots
from assets.report.examples import Query
from assets.report.gate import decide
from assets.report.inputs import Evaluation, TestSplit, count_rows, input_files, read_evaluation, read_pictures, read_test_split
from assets.report.measures import MEASURES, RECIPE_MEANINGS
from assets.report.pictures import credit_line, share_alike, tile
from assets.report.similarity import Similarities, draw_pairs, similarities

logger = logging.getLogger(__name__)

MAX_PAGE_BYTES = 15_000_000
PICTURE_SIDES = (112, 80, 56)  # pixels; the first with which the page stays small enough
PLOT_QUERIES, PLOT_HITS, PLOT_TILE = 4, 6, 120  # of the README's before/after pictures; pixels
TRAINING_PANEL, SIMILARITY_PANEL = (2.3, 1.5), (3.8, 2.2)  # inches
TILES_ABREAST = 8

History = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Shown:
    """The example queries of the page, and the pictures that they need, by id."""

    images: list[Query]
    texts: list[Query]
    failed_images: list[Query]
    failed_texts: list[Query]
    pictures: dict[str, bytes]

    @property
    def rows(self) -> list[int]:
        return sorted({row for query in (*self.images, *self.texts, *self.failed_images, *self.failed_texts) for row in query.rows})


def make_report(settings: params.Report, promotion: params.Promotion, published_recipe: str) -> None:
    """Write metrics.json, verdict.json, index.html and plots/ of data/report, all of them or none."""
    test = read_test_split()
    evaluations = {recipe: read_evaluation(recipe, test) for recipe in RECIPES}
    histories = {recipe: artifacts.read_json(artifacts.history_file(recipe))["rows"] for recipe in RECIPES if recipe != "base"}

    rows, differences = compare_with_base(evaluations, settings.seed)
    champion = artifacts.read_json(artifacts.CHAMPION)
    published = evaluations[published_recipe]
    with_champion = comparison.paired_with_champion(champion, published.per_query, published.per_class, published.level, settings.seed)
    verdict = decide(rows[published_recipe], rows["base"], differences[published_recipe], champion, with_champion, promotion)
    against = verdict["against"]
    logger.info("%s %s: %s", verdict["decision"], published_recipe, " ".join(verdict["reasons"]))

    before_after = {recipe: evaluations[recipe] for recipe in dict.fromkeys(["base", published_recipe])}
    shown = choose_examples(before_after, published_recipe, test, settings)
    pairs = draw_pairs(test.labels, test.captions_of, test.captions, settings.seed)
    spread = {recipe: similarities(each.images, each.texts[len(test.classes) :], pairs) for recipe, each in before_after.items()}
    metrics = {"rows": list(rows.values()), "counts": evaluations["base"].metrics["counts"]}
    context = {
        "verdict": verdict,
        "families": page.family_views(verdict),
        "published": published_recipe,
        "meaning": RECIPE_MEANINGS[published_recipe],
        "against": against if against == "base" else f"the champion ({champion['recipe']})",
        "counts": metrics["counts"],
        "level": 100 * evaluations["base"].level,
        "measures": MEASURES,
        "table": page.recipe_rows(metrics["rows"], published_recipe),
        "histories": training_panels(histories),
        "validation_legend": plots.legend_lines(plots.VALIDATION_LINES),
        "similarities": similarity_panels(spread),
        "similarity_legend": plots.legend_lines(plots.SIMILARITY_LINES),
        "groups": page.group_views(compare_groups(evaluations["base"], evaluations[published_recipe], settings.seed)),
        "splits": count_rows(),
        "inputs": [{"path": path.as_posix(), "sha256": artifacts.sha256_of(path)} for path in input_files()],
        "settings": json.dumps({"report": settings.model_dump(), "promotion": promotion.model_dump()}, indent=2, ensure_ascii=False),
        "seed": settings.seed,
        "tile_columns": min(settings.top_k, TILES_ABREAST),
        "credits": test.credits(shown.rows),
        "share_alike": share_alike(test.credits(shown.rows)),
    }
    html = render_page(context, shown, test)

    with artifacts.replacing(artifacts.PLOTS) as folder:
        write_plots(folder, histories, spread, shown, test)
    with artifacts.replacing(artifacts.REPORT_PAGE) as temporary:
        temporary.write_text(html, encoding="utf-8")
    artifacts.write_json(artifacts.METRICS, metrics)
    artifacts.write_json(artifacts.VERDICT, verdict)
    logger.info("%s, %.1f MB", artifacts.REPORT_PAGE, len(html.encode()) / 1e6)


def compare_with_base(
    evaluations: Mapping[str, Evaluation], seed: int
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, PairedDifference]]]:
    """By recipe: the row of metrics.json, with its differences to base in `confidence`; and these differences by measure."""
    base = evaluations["base"]
    classes = comparison.query_classes(base.per_query, base.per_class)
    base_values = comparison.query_values(base.per_query, base.per_class)
    rows, differences = {}, {}
    for recipe, each in evaluations.items():
        values = comparison.query_values(each.per_query, each.per_class)
        paired = comparison.paired_differences(values, base_values, classes, base.level, seed)
        differences[recipe] = comparison.all_differences(each.metrics, base.metrics, paired)
        against_base = {key: comparison.difference_json(difference) for key, difference in differences[recipe].items()}
        row = {key: value for key, value in each.metrics.items() if key != "counts"}
        rows[recipe] = row | {"confidence": each.metrics["confidence"] | {"against_base": against_base}}
    return rows, differences


def compare_groups(base: Evaluation, published: Evaluation, seed: int) -> list[dict[str, Any]]:
    """Mean average precision by group; empty where no image has a group."""
    groups = np.array([group or "" for group in base.per_query["group"].to_pylist()])
    classes = np.array(base.per_query["label"].to_pylist())
    after, before = (each.per_query["average_precision"].to_numpy() for each in (published, base))
    return comparison.group_differences(after, before, groups, classes, base.level, seed)


def choose_examples(before_after: Mapping[str, Evaluation], published_recipe: str, test: TestSplit, settings: params.Report) -> Shown:
    """Queries drawn by seed, answered by base and the published recipe; and the queries on which the published recipe does worst."""
    published = before_after[published_recipe]
    images = {recipe: each.images for recipe, each in before_after.items()}
    texts = {recipe: each.texts for recipe, each in before_after.items()}
    alone = {published_recipe: published.images}
    k = settings.top_k

    drawn_images = examples.draw_images(test.labels, settings.queries, settings.seed)
    drawn_texts = examples.draw_texts(test.class_names, settings.queries, settings.seed)
    average_precision = published.per_query["average_precision"].to_numpy()
    worst_images = examples.worst_images(average_precision, test.labels, settings.worst_failures)
    worst_texts = examples.worst_texts(published.texts, published.images, test.class_names, test.names, settings.worst_failures)

    asked = (
        examples.ask_images(drawn_images, images, test.labels, test.names, k),
        examples.ask_texts(drawn_texts, texts, images, test.class_names, test.names, k),
        examples.ask_images(worst_images, alone, test.labels, test.names, k),
        examples.ask_texts(worst_texts, texts, alone, test.class_names, test.names, k),
    )
    needed = {row for queries in asked for query in queries for row in query.rows}
    return Shown(*asked, pictures=read_pictures(set(test.ids(needed))))


def training_panels(histories: Mapping[str, History]) -> list[dict[str, Any]]:
    limits = plots.validation_limits(histories.values())
    return [
        {
            "recipe": recipe,
            "meaning": RECIPE_MEANINGS[recipe],
            "rows": rows,
            "loss": Markup(plots.svg_panel(TRAINING_PANEL, plots.draw_loss, rows)),
            "validation": Markup(plots.svg_panel(TRAINING_PANEL, plots.draw_validation, rows, limits)),
        }
        for recipe, rows in histories.items()
    ]


def similarity_panels(spread: Mapping[str, Similarities]) -> list[dict[str, Any]]:
    scale = plots.histogram_scale(list(spread.values()))
    return [
        {
            "recipe": recipe,
            "svg": Markup(plots.svg_panel(SIMILARITY_PANEL, plots.draw_similarities, found, scale)),
            "medians": [
                (line.name, f"{np.median(cosines):.2f}") for line in plots.SIMILARITY_LINES if len(cosines := getattr(found, line.key))
            ],
            "separation": found.separation,
        }
        for recipe, found in spread.items()
    ]


def render_page(context: Mapping[str, Any], shown: Shown, test: TestSplit) -> str:
    """The page with the largest pictures that keep it within MAX_PAGE_BYTES, or with the smallest ones."""
    for side in PICTURE_SIDES:
        album = page.Album(test, shown.pictures, side)
        html = page.render(
            image_cards=[page.query_card(query, album) for query in shown.images],
            text_cards=[page.query_card(query, album) for query in shown.texts],
            failed_image_cards=[page.query_card(query, album) for query in shown.failed_images],
            failed_text_cards=[page.query_card(query, album) for query in shown.failed_texts],
            **context,
        )
        if len(html.encode()) <= MAX_PAGE_BYTES:
            return html
    logger.warning("the page is larger than %d MB: lower report.queries, top_k or worst_failures", MAX_PAGE_BYTES // 1_000_000)
    return html


def write_plots(folder: Path, histories: Mapping[str, History], spread: Mapping[str, Similarities], shown: Shown, test: TestSplit) -> None:
    folder.mkdir()
    plots.write_png(plots.loss_figure(histories), folder / "loss.png")
    plots.write_png(plots.similarity_figure(spread), folder / "similarity.png")
    for name, drawn in (("before_after_images.png", shown.images), ("before_after_texts.png", shown.texts)):
        queries = examples.most_changed(drawn, PLOT_QUERIES, PLOT_HITS)
        grid = [grid_row(query, shown.pictures, test) for query in queries]
        rows = {hit.row for query in queries for found in query.answers.values() for hit in found.hits[:PLOT_HITS]}
        rows |= {query.row for query in queries if query.row is not None}
        plots.write_png(plots.before_after_figure(grid, credit_line(test.credits(sorted(rows)))), folder / name)


def grid_row(query: Query, pictures: Mapping[str, bytes], test: TestSplit) -> plots.GridRow:
    def drawn(row: int) -> np.ndarray:
        (identifier,) = test.ids([row])
        return tile(pictures[identifier], PLOT_TILE)

    found = {recipe: [(drawn(hit.row), hit.right) for hit in each.hits[:PLOT_HITS]] for recipe, each in query.answers.items()}
    return plots.GridRow(query.name if query.row is None else drawn(query.row), query.name, found)
