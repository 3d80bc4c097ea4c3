"""Stage report: draw what promotion and the stages before it found, as a page, as Markdown and as picture files.

It measures and judges nothing; each section of the page has a module of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from assets import artifacts, params
from assets.errors import UserError
from assets.evaluations import TestSplit, read_evaluation, read_test_split
from assets.pictures.credits import share_alike
from assets.pictures.small import data_uri
from assets.pictures.table import read_images_of
from assets.recipes import BASE, CHAMPION
from assets.report import before_after as grids
from assets.report import (
    benchmarks,
    classes,
    curation,
    decision,
    doubtful,
    drawing,
    drop,
    embedding_map,
    funnel,
    health,
    page,
    provenance,
    queries,
    results,
    siblings,
)
from assets.report import readable as words
from assets.report import similarity as alike
from assets.report import training as curves
from assets.report.album import Album
from assets.report.classes import Changed
from assets.report.queries import TILES_ABREAST, Chosen
from assets.report.siblings import Pair
from assets.report.similarity import Similarities
from assets.report.training import History

logger = logging.getLogger(__name__)

MAX_PAGE_BYTES = 15_000_000
PICTURE_SIDES = {112: 64, 80: 48, 56: 32}  # pixels, on the page: on the map; the first pair that keeps the page small enough


def make_report(settings: params.Report, promotion: params.Promotion, about: Mapping[str, str], measured: list[str]) -> None:
    """Write index.html, curation.html, report.md and plots/ of data/report, each of them whole.

    `about` says of every recipe what it is; `measured` are the recipes of the tables, in their order.
    """
    metrics, verdict = read_promotion(promotion.recipe, measured)
    champion = artifacts.read_json(artifacts.CHAMPION)
    test = read_test_split()
    evaluations = {recipe: read_evaluation(recipe, test) for recipe in measured}
    base, published = evaluations[BASE], evaluations[promotion.recipe]
    before_after = {each.recipe: each for each in (base, published)}  # one, where base is published
    histories = curves.read_histories(dict.fromkeys([*measured, *about]))

    changed = classes.find_changed(base, published, test, settings.changed_classes)
    chosen = queries.choose(before_after, published, test, settings)
    on_map = embedding_map.draw_classes(test.labels, settings.map_images, settings.seed)
    near = siblings.read_nearest()
    near_shown = siblings.examples(near, settings.siblings)
    places = embedding_map.places_of(before_after, on_map, settings.seed)
    pairs = alike.draw_pairs(test.labels, test.captions_of, test.captions, settings.seed)
    spread = {recipe: alike.similarities(each.images, each.texts[len(test.classes) :], pairs) for recipe, each in before_after.items()}
    in_order = health.health(
        {recipe: (each.images, each.texts) for recipe, each in evaluations.items()}, test.labels, pairs.image_caption, len(test.classes)
    )
    trained = curves.trainings(histories, curves.read_alignment(), about)
    said = decision.decision_view(verdict, metrics["rows"], champion, about[promotion.recipe]) | {
        "counts": metrics["counts"],
        "level": 100 * published.level,
        **results.results_view(metrics, promotion.recipe, about),
        "without_siblings": siblings.without_siblings_view(metrics),
        **classes.classes_view(changed, metrics["groups"]),
        **health.health_view(in_order),
        "table_1": benchmarks.table_1_view(benchmarks.read_benchmarks(measured), measured),
        "histories": trained,
        "limits": funnel.limits_view(funnel.read_sides(), histories, published.level),
        "funnel": funnel.funnel_view(funnel.count_rejected(), funnel.count_rows()),
        **drop.drop_view(drop.read_drop()),
        **words.readable_view(words.read_readable()),
        **provenance.provenance_view([each.made_with for each in evaluations.values()], verdict, champion, settings, promotion),
        "tile_columns": min(settings.top_k, TILES_ABREAST),
        "seed": settings.seed,
    }
    drawn = {
        **curves.training_view(trained),
        **alike.similarity_view(spread, {recipe: in_order[recipe]["threshold"] for recipe in spread}),
        "changes_svg": classes.changes_svg(changed),
    }
    shown = sorted({*chosen.rows, *changed.rows, *on_map})
    of_pairs = {row["id"] for pair in near_shown for row in (pair.test, pair.train)}
    pictures = read_images_of(artifacts.CURATED_IMAGES, of_pairs.union(test.ids(shown)))
    html = render_page(said | drawn, chosen, changed, near, near_shown, places, on_map, shown, pictures, test)
    markdown = page.render_markdown(
        **said,
        gained=[(test.names[change.rows[0]], change) for change, _ in changed.gained],
        lost=[(test.names[change.rows[0]], change) for change, _ in changed.lost],
    )

    with artifacts.replacing(artifacts.PLOTS) as folder:
        write_plots(folder, histories, spread, chosen, pictures, test)
    ids = test.ids(range(len(test.labels)))
    near_by_base = doubtful.neighbours(base.images)
    doubts = {
        "contradicted": doubtful.contradicted(ids, test.names, test.labels, near_by_base),
        "taken_for_one": doubtful.taken_for_one(ids, test.labels, near_by_base),
    }
    about_data = page.render_curation(**curation.curation_view(said["funnel"], said["readable"], doubts))
    for path, text in ((artifacts.REPORT_PAGE, html), (artifacts.CURATION_PAGE, about_data), (artifacts.REPORT_MARKDOWN, markdown)):
        with artifacts.replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    logger.info("%s, %.1f MB", artifacts.REPORT_PAGE, len(html.encode()) / 1e6)


def read_promotion(recipe: str, measured: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """metrics.json and verdict.json of data/promotion. UserError where they are of other recipes."""
    metrics, verdict = artifacts.read_json(artifacts.METRICS), artifacts.read_json(artifacts.VERDICT)
    rows = [row["recipe"] for row in metrics["rows"] if row["recipe"] != CHAMPION]
    if rows != measured or verdict["recipe"] != recipe:
        raise UserError(
            f"{artifacts.METRICS.parent} has the rows {', '.join(rows)} and judges {verdict['recipe']}; params.yaml asks for"
            f" {', '.join(measured)} and {recipe}. `dvc repro promotion` makes it anew."
        )
    return metrics, verdict


def render_page(
    said: Mapping[str, Any],
    chosen: Chosen,
    changed: Changed,
    near: list[Pair],
    near_shown: list[Pair],
    places: Mapping[str, np.ndarray],
    on_map: list[int],
    shown: list[int],
    pictures: Mapping[str, bytes],
    test: TestSplit,
) -> str:
    """The page with the largest pictures that keep it within MAX_PAGE_BYTES, else with the smallest. `shown`: all rows in pictures."""
    of_map = [pictures[identifier] for identifier in test.ids(on_map)]
    credited = sorted({*test.credits(shown), *siblings.credits_of_pairs(near_shown)})
    for side, map_side in PICTURE_SIDES.items():
        album = Album(test, pictures, side)
        html = page.render(
            query_sets=queries.queries_view(chosen, said["published"], said["seed"], album),
            gained=classes.class_cards(changed.gained, album),
            lost=classes.class_cards(changed.lost, album),
            siblings=siblings.siblings_view(near, near_shown, pictures, side),
            map=embedding_map.map_view(places, on_map, test) if places else None,
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


def write_plots(
    folder: Path,
    histories: Mapping[str, History],
    spread: Mapping[str, Similarities],
    chosen: Chosen,
    pictures: Mapping[str, bytes],
    test: TestSplit,
) -> None:
    folder.mkdir()
    if histories:
        drawing.write_png(curves.loss_figure(histories), folder / "loss.png")
    drawing.write_png(alike.similarity_figure(spread), folder / "similarity.png")
    drawing.write_png(grids.grid(chosen.images, pictures, test), folder / "before_after_images.png")
    drawing.write_png(grids.grid(chosen.texts, pictures, test), folder / "before_after_texts.png")
