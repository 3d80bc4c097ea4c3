"""The report stage: from the evaluations to the five rows, the verdict, the plots and the page. Measuring is evaluation's."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from assets import artifacts, params
from assets.artifacts import RECIPES
from assets.metrics import PairedDifference
from assets.report import changes, comparison, embedding_map, examples, health, page, plots, provenance
from assets.report.changes import ClassChange
from assets.report.examples import Query
from assets.report.gate import decide
from assets.report.inputs import (
    Evaluation,
    TestSplit,
    count_rejected,
    count_rows,
    input_files,
    read_alignment,
    read_evaluation,
    read_pictures,
    read_test_split,
)
from assets.report.measures import MEASURES, RECIPE_MEANINGS
from assets.report.pictures import credit_line, data_uri, share_alike, tile
from assets.report.similarity import Similarities, draw_pairs, similarities
from assets.report.table_1 import read_benchmarks, table_1

logger = logging.getLogger(__name__)

MAX_PAGE_BYTES = 15_000_000
PICTURE_SIDES = {112: 64, 80: 48, 56: 32}  # pixels, on the page: on the map; the first with which the page stays small enough
PLOT_QUERIES, PLOT_HITS, PLOT_TILE = 4, 6, 120  # of the README's before/after pictures; pixels
TRAINING_PANEL, SIMILARITY_PANEL, CHANGES_PANEL = (2.3, 1.5), (3.8, 2.2), (4.8, 1.9)  # inches
TILES_ABREAST = 8

History = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Shown:
    """The example queries and classes of the page, the images on its map, and the pictures that all of them need, by id."""

    images: list[Query]
    texts: list[Query]
    failed_images: list[Query]
    failed_texts: list[Query]
    gained: list[tuple[ClassChange, list[tuple[str, int]]]]
    lost: list[tuple[ClassChange, list[tuple[str, int]]]]
    on_map: list[int]
    pictures: dict[str, bytes]

    @property
    def rows(self) -> list[int]:
        asked = (row for query in (*self.images, *self.texts, *self.failed_images, *self.failed_texts) for row in query.rows)
        changed = (row for change, _ in (*self.gained, *self.lost) for row in change.rows[: page.CLASS_PICTURES])
        return sorted({*asked, *changed, *self.on_map})


def make_report(settings: params.Report, promotion: params.Promotion, published_recipe: str) -> None:
    """Write metrics.json, verdict.json, index.html, report.md and plots/ of data/report, all of them or none."""
    test = read_test_split()
    evaluations = {recipe: read_evaluation(recipe, test) for recipe in RECIPES}
    histories = {recipe: artifacts.read_json(artifacts.history_file(recipe))["rows"] for recipe in RECIPES if recipe != "base"}
    champion = artifacts.read_json(artifacts.CHAMPION)
    models = {recipe: artifacts.sha256_of(artifacts.model_dir(recipe)) for recipe in RECIPES}
    published = evaluations[published_recipe]

    rows, differences = compare_with_base(evaluations, settings.seed)
    test_sha256 = comparison.split_digest(test.rows)
    with_champion = comparison.paired_with_champion(
        champion, published.per_query, published.per_class, test_sha256, published.level, settings.seed
    )
    verdict = decide(rows[published_recipe], rows["base"], differences[published_recipe], champion, with_champion, promotion)
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
    context = (
        decision_context(verdict, rows, champion)
        | measured_context(metrics, evaluations, published, changed, in_order, settings)
        | training_context(histories)
        | provenance_context(settings, promotion, published_recipe, champion, models)
    )
    html = render_page(context | drawings(context["histories"], spread, in_order, changed), shown, places, test)
    markdown = page.render_markdown(
        **context,
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


def decision_context(verdict: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]], champion: Mapping[str, Any]) -> dict[str, Any]:
    """What was decided on which recipe, against what. `rows` by recipe."""
    published, against_base = verdict["recipe"], verdict["against"] == "base"
    against = "base" if against_base else f"the champion ({champion['recipe']})"
    reference = rows["base"] if against_base else champion["metrics"] or {}
    return {
        "verdict": verdict,
        "headline": page.headline(verdict, against),
        "families": page.family_views(verdict),
        "published": published,
        "meaning": RECIPE_MEANINGS[published],
        "against": against,
        "metric_changes": page.metric_changes(rows[published], reference, verdict),
    }


def measured_context(
    metrics: Mapping[str, Any],
    evaluations: Mapping[str, Evaluation],
    published: Evaluation,
    changed: Sequence[ClassChange],
    in_order: Mapping[str, Mapping[str, float | None]],
    settings: params.Report,
) -> dict[str, Any]:
    """What the recipes score, where that changed, whether their embeddings are in order, and on which images."""
    return {
        "counts": metrics["counts"],
        "level": 100 * published.level,
        "measures": MEASURES,
        "table": page.recipe_rows(metrics["rows"], published.recipe),
        "tally": changes.tally(changed),
        "noticeable": changes.NOTICEABLE,
        "groups": page.group_views(compare_groups(evaluations["base"], published, settings.seed)),
        "health_recipes": list(in_order),
        "health": page.health_rows(in_order),
        "table_1": table_1(read_benchmarks()),
        "funnel": page.funnel_view(count_rejected(), count_rows()),
        "tile_columns": min(settings.top_k, TILES_ABREAST),
    }


def training_context(histories: Mapping[str, History]) -> dict[str, Any]:
    """How the models were trained, and the base where this project trained it."""
    alignment = read_alignment()
    trained = ({"base": alignment} if alignment else {}) | dict(histories)
    return {"histories": [{"recipe": recipe, "meaning": RECIPE_MEANINGS[recipe], "rows": each} for recipe, each in trained.items()]}


def provenance_context(
    settings: params.Report, promotion: params.Promotion, published_recipe: str, champion: Mapping[str, Any], models: Mapping[str, str]
) -> dict[str, Any]:
    """What the report was made from. `models`: their SHA-256 by recipe."""
    trained_with = provenance.recipe_settings(published_recipe)
    return {
        "inputs": [{"path": path.as_posix(), "md5": provenance.dvc_md5(path)} for path in input_files()],
        "models": [{"recipe": recipe, "sha256": digest} for recipe, digest in models.items()],
        "champion": champion["recipe"],
        "champion_sha256": champion["model_sha256"],
        "trained_with": trained_with,
        # a champion of earlier times does not say how it was trained
        "settings_diff": provenance.settings_diff(champion["settings"], trained_with) if champion.get("settings") else None,
        "settings": json.dumps({"report": settings.model_dump(), "promotion": promotion.model_dump()}, indent=2, ensure_ascii=False),
        "seed": settings.seed,
    }


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


def choose_examples(
    before_after: Mapping[str, Evaluation],
    published_recipe: str,
    changed: Sequence[ClassChange],
    test: TestSplit,
    settings: params.Report,
) -> Shown:
    """Queries drawn by seed, and those on which the published recipe does worst, answered by base and it; classes; images of the map."""
    published = before_after[published_recipe]
    images = {recipe: each.images for recipe, each in before_after.items()}
    texts = {recipe: each.texts for recipe, each in before_after.items()}
    k = settings.top_k

    average_precision = published.per_query["average_precision"].to_numpy()
    chosen_images = (
        examples.draw_images(test.labels, settings.queries, settings.seed),
        examples.worst_images(average_precision, test.labels, settings.worst_failures),
    )
    chosen_texts = (
        examples.draw_texts(test.class_names, settings.queries, settings.seed),
        examples.worst_texts(published.texts, published.images, test.class_names, test.names, settings.worst_failures),
    )
    drawn_images, worst_images = (examples.ask_images(rows, images, test.labels, test.names, k) for rows in chosen_images)
    drawn_texts, worst_texts = (examples.ask_texts(each, texts, images, test.class_names, test.names, k) for each in chosen_texts)
    gained, lost = (
        [(change, changes.found_instead(change, published.images, test.labels, test.names)) for change in most]
        for most in (changes.most_gained(changed, settings.changed_classes), changes.most_lost(changed, settings.changed_classes))
    )
    on_map = embedding_map.draw_classes(test.labels, settings.map_images, settings.seed)
    shown = Shown(drawn_images, drawn_texts, worst_images, worst_texts, gained, lost, on_map, pictures={})
    return replace(shown, pictures=read_pictures(set(test.ids(shown.rows))))


def map_places(before_after: Mapping[str, Evaluation], published_recipe: str, rows: list[int], seed: int) -> dict[str, np.ndarray]:
    """Where the images of the map lie in base's space and in the published recipe's, which starts from the former."""
    places: dict[str, np.ndarray] = {}
    if rows:
        for recipe, each in before_after.items():
            places[recipe] = embedding_map.layout(each.images[rows], seed, places.get("base"))
    return places


def drawings(
    histories: Sequence[Mapping[str, Any]],
    spread: Mapping[str, Similarities],
    in_order: Mapping[str, Mapping[str, float | None]],
    changed: Sequence[ClassChange],
) -> dict[str, Any]:
    """The page's own drawings, beside what the Markdown has as well."""
    return {
        "training": training_panels(histories),
        "validation_legend": plots.legend_lines(plots.VALIDATION_LINES),
        "similarities": similarity_panels(spread, in_order),
        "similarity_legend": plots.legend_lines(plots.SIMILARITY_LINES),
        "changes_svg": Markup(plots.svg_panel(CHANGES_PANEL, plots.draw_changes, [each.points for each in changed])),
    }


def training_panels(histories: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    limits = plots.validation_limits(each["rows"] for each in histories)
    return [
        {
            **each,
            "loss": Markup(plots.svg_panel(TRAINING_PANEL, plots.draw_loss, each["rows"])),
            "validation": Markup(plots.svg_panel(TRAINING_PANEL, plots.draw_validation, each["rows"], limits)),
        }
        for each in histories
    ]


def similarity_panels(spread: Mapping[str, Similarities], in_order: Mapping[str, Mapping[str, float | None]]) -> list[dict[str, Any]]:
    scale = plots.histogram_scale(list(spread.values()))
    return [
        {
            "recipe": recipe,
            "svg": Markup(plots.svg_panel(SIMILARITY_PANEL, plots.draw_similarities, found, scale, in_order[recipe]["threshold"])),
            "threshold": in_order[recipe]["threshold"],
            "medians": [
                (line.name, f"{np.median(cosines):.2f}") for line in plots.SIMILARITY_LINES if len(cosines := getattr(found, line.key))
            ],
            "separation": found.separation,
        }
        for recipe, found in spread.items()
    ]


def render_page(context: Mapping[str, Any], shown: Shown, places: Mapping[str, np.ndarray], test: TestSplit) -> str:
    """The page with the largest pictures that keep it within MAX_PAGE_BYTES, or with the smallest ones."""
    published, seed = context["published"], context["seed"]
    sets = (
        ("Pictures", shown.images, f"test images drawn at random (seed {seed}), not chosen; each searches all the other test images"),
        ("Words", shown.texts, f"class names drawn at random (seed {seed}); each searches all test images, as a person’s words would"),
        ("Worst pictures", shown.failed_images, f"images with the lowest average precision of {published}, one a class"),
        ("Worst words", shown.failed_texts, f"names whose first right image comes last with {published}"),
    )
    of_map = [shown.pictures[identifier] for identifier in test.ids(shown.on_map)]
    credited = test.credits(shown.rows)
    for side, map_side in PICTURE_SIDES.items():
        album = page.Album(test, shown.pictures, side)
        html = page.render(
            query_sets=[page.query_set(title, note, queries, album) for title, queries, note in sets if queries],
            gained=page.class_cards(shown.gained, album),
            lost=page.class_cards(shown.lost, album),
            map=page.map_view(places, shown.on_map, test) if places else None,
            map_sheet=data_uri(embedding_map.sheet(of_map, map_side)) if places else None,
            map_side=map_side,
            credits=credited,
            share_alike=share_alike(credited),
            **context,
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
