"""The report stage: from the evaluations to the five rows, the verdict, the plots and the page. Measuring is evaluation's."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from assets import artifacts, params
from assets.artifacts import RECIPES
from assets.metrics.bootstrap import PairedDifference
from assets.pictures.small import credit_line, data_uri, share_alike, tile
from assets.report import changes, comparison, context, embedding_map, examples, health, page, plots, provenance
from assets.report.cards import Album, class_cards, query_set
from assets.report.champion import incomparable, paired_with_champion, split_digest
from assets.report.comparison import Bootstrap
from assets.report.examples import Query
from assets.report.gate import decide
from assets.report.inputs import Evaluation, History, TestSplit, read_evaluation, read_test_split
from assets.report.shown import Shown, choose_examples
from assets.report.similarity import Similarities, draw_pairs, similarities
from assets.report.views import map_view

logger = logging.getLogger(__name__)

MAX_PAGE_BYTES = 15_000_000
PICTURE_SIDES = {112: 64, 80: 48, 56: 32}  # pixels, on the page: on the map; the first with which the page stays small enough
PLOT_QUERIES, PLOT_HITS, PLOT_TILE = 4, 6, 120  # of the README's before/after pictures; pixels


def make_report(settings: params.Report, promotion: params.Promotion, published_recipe: str) -> None:
    """Write metrics.json, verdict.json, index.html, report.md and plots/ of data/report, all of them or none."""
    test = read_test_split()
    evaluations = {recipe: read_evaluation(recipe, test) for recipe in RECIPES}
    histories = {recipe: artifacts.read_json(artifacts.history_file(recipe))["rows"] for recipe in RECIPES if recipe != "base"}
    champion = artifacts.read_json(artifacts.CHAMPION)
    models = {recipe: artifacts.sha256_of(artifacts.model_dir(recipe)) for recipe in RECIPES}
    published = evaluations[published_recipe]
    made_with = provenance.recipe_settings(published_recipe)

    bootstrap = Bootstrap(settings.bootstrap_samples, published.level, settings.seed)
    rows, differences = compare_with_base(evaluations, bootstrap)
    test_sha256 = split_digest(test.rows)
    with_champion = paired_with_champion(champion, published.per_query, published.per_class, test_sha256, bootstrap)
    unlike = incomparable(champion.get("settings") or {}, made_with, with_champion or {})
    verdict = decide(rows[published_recipe], rows["base"], differences[published_recipe], champion, with_champion, unlike, promotion)
    verdict |= {"model_sha256": models[published_recipe], "test_sha256": test_sha256}  # what `make promote` may make the champion
    if comparison.too_few(len(test.classes), published.level):
        logger.warning("%d test class(es) are too few to tell a difference from chance, so all are ties", len(test.classes))
    logger.info("%s %s: %s", verdict["decision"], published_recipe, " ".join(verdict["reasons"]))
    metrics = {"rows": list(rows.values()), "counts": published.metrics["counts"]}

    before_after = {recipe: evaluations[recipe] for recipe in dict.fromkeys(["base", published_recipe])}
    average_precision = {recipe: each.per_query["average_precision"].to_numpy() for recipe, each in before_after.items()}
    changed = changes.class_changes(test.labels, average_precision["base"], average_precision[published_recipe])
    shown = choose_examples(before_after, published_recipe, changed, test, settings)
    places = map_places(before_after, published_recipe, shown.on_map, settings.seed)
    pairs = draw_pairs(test.labels, test.captions_of, test.captions, settings.seed)
    spread = {recipe: similarities(each.images, each.texts[len(test.classes) :], pairs) for recipe, each in before_after.items()}
    in_order = health.health(
        {recipe: (each.images, each.texts) for recipe, each in evaluations.items()}, test.labels, pairs.image_caption, len(test.classes)
    )
    groups = compare_groups(evaluations["base"], published, bootstrap)
    said = (
        context.decision(verdict, rows, champion, unlike)
        | context.measured(metrics, published, groups, changed, in_order, settings.top_k)
        | context.training(histories)
        | context.made_from(settings, promotion, made_with, champion, models)
    )
    html = render_page(said | context.drawings(said["histories"], spread, in_order, changed), shown, places, test)
    markdown = page.render_markdown(
        **said,
        gained=[(test.names[change.rows[0]], change) for change, _ in shown.gained],
        lost=[(test.names[change.rows[0]], change) for change, _ in shown.lost],
    )

    with artifacts.replacing(artifacts.PLOTS) as folder:
        write_plots(folder, histories, spread, shown, test)
    for path, text in ((artifacts.REPORT_PAGE, html), (artifacts.REPORT_MARKDOWN, markdown)):
        with artifacts.replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    artifacts.write_json(artifacts.METRICS, metrics)
    artifacts.write_json(artifacts.VERDICT, verdict)
    logger.info("%s, %.1f MB", artifacts.REPORT_PAGE, len(html.encode()) / 1e6)


def compare_with_base(
    evaluations: Mapping[str, Evaluation], bootstrap: Bootstrap
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, PairedDifference]]]:
    """By recipe: the row of metrics.json, with its differences to base in `confidence`; and these differences by measure."""
    base = evaluations["base"]
    classes = comparison.query_classes(base.per_query, base.per_class)
    base_values = comparison.query_values(base.per_query, base.per_class)
    rows, differences = {}, {}
    for recipe, each in evaluations.items():
        values = comparison.query_values(each.per_query, each.per_class)
        paired = comparison.paired_differences(values, base_values, classes, bootstrap)
        differences[recipe] = comparison.all_differences(each.metrics, base.metrics, paired)
        against_base = {key: comparison.difference_json(difference) for key, difference in differences[recipe].items()}
        row = {key: value for key, value in each.metrics.items() if key != "counts"}
        rows[recipe] = row | {"confidence": each.metrics["confidence"] | {"against_base": against_base}}
    return rows, differences


def compare_groups(base: Evaluation, published: Evaluation, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Mean average precision by group; empty where no image has a group."""
    groups = np.array([group or "" for group in base.per_query["group"].to_pylist()])
    classes = np.array(base.per_query["label"].to_pylist())
    after, before = (each.per_query["average_precision"].to_numpy() for each in (published, base))
    return comparison.group_differences(after, before, groups, classes, bootstrap)


def map_places(before_after: Mapping[str, Evaluation], published_recipe: str, rows: list[int], seed: int) -> dict[str, np.ndarray]:
    """Where the images of the map lie in base's space and in the published recipe's, which starts from the former."""
    places: dict[str, np.ndarray] = {}
    if rows:
        for recipe, each in before_after.items():
            places[recipe] = embedding_map.layout(each.images[rows], seed, places.get("base"))
    return places


def render_page(said: Mapping[str, Any], shown: Shown, places: Mapping[str, np.ndarray], test: TestSplit) -> str:
    """The page with the largest pictures that keep it within MAX_PAGE_BYTES, or with the smallest ones."""
    published, seed = said["published"], said["seed"]
    sets = (
        ("Pictures", shown.images, f"test images drawn at random (seed {seed}), not chosen; each searches all the other test images"),
        ("Words", shown.texts, f"class names drawn at random (seed {seed}); each searches all test images, as a person’s words would"),
        ("Worst pictures", shown.failed_images, f"images with the lowest average precision of {published}, one a class"),
        ("Worst words", shown.failed_texts, f"names whose first right image comes last with {published}"),
    )
    of_map = [shown.pictures[identifier] for identifier in test.ids(shown.on_map)]
    credited = test.credits(shown.rows)
    for side, map_side in PICTURE_SIDES.items():
        album = Album(test, shown.pictures, side)
        html = page.render(
            query_sets=[query_set(title, note, queries, album) for title, queries, note in sets if queries],
            gained=class_cards(shown.gained, album),
            lost=class_cards(shown.lost, album),
            map=map_view(places, shown.on_map, test) if places else None,
            map_sheet=data_uri(embedding_map.sheet(of_map, map_side)) if places else None,
            map_side=map_side,
            credits=credited,
            share_alike=share_alike(credited),
            **said,
        )
        if len(html.encode()) <= MAX_PAGE_BYTES:
            return html
    logger.warning("the page is larger than %d MB: lower report.map_images, queries, top_k or worst_failures", MAX_PAGE_BYTES // 1_000_000)
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
