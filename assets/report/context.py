"""What the page and its Markdown say, section by section, and the drawings that only the page has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from assets import params
from assets.report import changes, plots, provenance, views
from assets.report.benchmarks import read_benchmarks, table_1_view
from assets.report.changes import ClassChange
from assets.report.inputs import Evaluation, History, count_rejected, count_rows, input_files, read_alignment
from assets.report.measures import MEASURES, RECIPE_MEANINGS
from assets.report.similarity import Similarities

TRAINING_PANEL, SIMILARITY_PANEL, CHANGES_PANEL = (2.3, 1.5), (3.8, 2.2), (4.8, 1.9)  # inches
TILES_ABREAST = 8


def decision(
    verdict: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]], champion: Mapping[str, Any], unlike: Mapping[str, str]
) -> dict[str, Any]:
    """What was decided on which recipe, against what. `rows` by recipe; `unlike`: measures that are not comparable."""
    published, against_base = verdict["recipe"], verdict["against"] == "base"
    against = "base" if against_base else f"the champion ({champion['recipe']})"
    reference = rows["base"] if against_base else champion["metrics"] or {}
    return {
        "verdict": verdict,
        "headline": views.headline(verdict, against),
        "families": views.family_views(verdict),
        "published": published,
        "meaning": RECIPE_MEANINGS[published],
        "against": against,
        "metric_changes": views.metric_changes(rows[published], reference, verdict, () if against_base else unlike),
    }


def measured(
    metrics: Mapping[str, Any],
    published: Evaluation,
    groups: Sequence[Mapping[str, Any]],
    changed: Sequence[ClassChange],
    in_order: Mapping[str, Mapping[str, float | None]],
    top_k: int,
) -> dict[str, Any]:
    """What the recipes score, where that changed, whether their embeddings are in order, and on which images."""
    return {
        "counts": metrics["counts"],
        "level": 100 * published.level,
        "measures": MEASURES,
        "table": views.recipe_rows(metrics["rows"], published.recipe),
        "tally": changes.tally(changed),
        "noticeable": changes.NOTICEABLE,
        "groups": views.group_views(groups),
        "health_recipes": list(in_order),
        "health": views.health_rows(in_order),
        "table_1": table_1_view(read_benchmarks()),
        "funnel": views.funnel_view(count_rejected(), count_rows()),
        "tile_columns": min(top_k, TILES_ABREAST),
    }


def training(histories: Mapping[str, History]) -> dict[str, Any]:
    """How the models were trained, and the base where this project trained it."""
    alignment = read_alignment()
    trained = ({"base": alignment} if alignment else {}) | dict(histories)
    return {"histories": [{"recipe": recipe, "meaning": RECIPE_MEANINGS[recipe], "rows": each} for recipe, each in trained.items()]}


def made_from(
    settings: params.Report,
    promotion: params.Promotion,
    made_with: Mapping[str, Any],
    champion: Mapping[str, Any],
    models: Mapping[str, str],
) -> dict[str, Any]:
    """What the report was made from. `made_with`: the published recipe's settings by name; `models`: SHA-256 by recipe."""
    return {
        "inputs": [{"path": path.as_posix(), "md5": provenance.dvc_md5(path)} for path in input_files()],
        "models": [{"recipe": recipe, "sha256": digest} for recipe, digest in models.items()],
        "champion": champion["recipe"],
        "champion_sha256": champion["model_sha256"],
        "made_with": made_with,
        # a champion of earlier times does not say how it was made
        "settings_diff": provenance.settings_diff(champion["settings"], made_with) if champion.get("settings") else None,
        "settings": json.dumps({"report": settings.model_dump(), "promotion": promotion.model_dump()}, indent=2, ensure_ascii=False),
        "seed": settings.seed,
    }


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
