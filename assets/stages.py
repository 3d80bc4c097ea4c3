"""The table of stages: what each depends on in params.yaml, its inputs and outputs, and what runs it.

The only module that sees the whole of params. dvc.yaml declares the same graph; tests/contracts keep the two equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from assets import artifacts, engine
from assets.errors import UserError
from assets.params import Params
from assets.recipes import BASE, CHAMPION
from assets.source_images.watched import watched

# Each run function imports its package when called: listing the stages must not import torch.


def _source_images(params: Params, recipe: str) -> None:
    from assets.source_images.stage import make_source_images

    make_source_images(params.source_images)


def _curated_images(params: Params, recipe: str) -> None:
    from assets.curated_images.stage import make_curated_images

    with engine.opened(params.engine) as where:
        make_curated_images(params.curated_images, Path(params.evaluation.benchmarks_root), where)


def _base_clip(params: Params, recipe: str) -> None:
    from assets.base_clip.stage import make_base_clip

    with engine.opened(params.engine) as where:
        make_base_clip(params.base_clip, params.training, where)


def _pseudo_captions(params: Params, recipe: str) -> None:
    from assets.pseudo_captions.stage import make_pseudo_captions

    with engine.opened(params.engine) as where:
        make_pseudo_captions(params.pseudo_captions, where)


def _training_captions(params: Params, recipe: str) -> None:
    from assets.training_captions.stage import make_training_captions

    settings = params.recipe[recipe].settings
    make_training_captions(recipe, settings.captions if settings.caption_weight > 0 else None)


def _image_tower(params: Params, recipe: str) -> None:
    from assets.image_tower.stage import train_image_tower

    with engine.opened(params.engine) as where:
        train_image_tower(params.recipe[recipe], params.training, where)


def _text_tower(params: Params, recipe: str) -> None:
    from assets.text_tower.stage import realign_text_tower

    with engine.opened(params.engine) as where:
        realign_text_tower(params.recipe[recipe], params.training, where)


def _evaluation(params: Params, recipe: str) -> None:
    from assets.evaluation.stage import evaluate

    with engine.opened(params.engine) as where:
        evaluate(params.evaluation, recipe, where)


def _champion(params: Params, recipe: str) -> None:
    from assets.champion.stage import measure_champion

    with engine.opened(params.engine) as where:
        measure_champion(params.evaluation, where)


def _promotion(params: Params, recipe: str) -> None:
    from assets.promotion.stage import judge_recipes

    judge_recipes(params.promotion, params.recipes.measured)


def _report(params: Params, recipe: str) -> None:
    from assets.report.stage import make_report

    make_report(params.report, params.promotion, {name: params.recipe[name].about for name in params.recipe}, params.recipes.measured)


def _export(params: Params, recipe: str) -> None:
    from assets.export.stage import export

    export(params.export, params.promotion.recipe)


def _search_table(params: Params, recipe: str) -> None:
    from assets.search_table.stage import publish

    with engine.opened(params.engine) as where:
        publish(params.search_table, params.promotion.recipe, where)


@dataclass(frozen=True)
class Stage:
    """One row. `recipes` gives the stage's variants, ("",) where it has none; the other functions are of (params, recipe).

    `settings` lists what of params.yaml the stage depends on, as dvc does. Its code is what the package `assets.<name>` imports
    (assets.imports), which dvc.yaml lists file by file.
    """

    name: str
    run: Callable[[Params, str], None]
    settings: Callable[[Params, str], list[str]]
    inputs: Callable[[Params, str], list[Path]]
    outputs: Callable[[Params, str], list[Path]]
    recipes: Callable[[Params], tuple[str, ...]] = lambda params: ("",)


def _section(*names: str) -> Callable[[Params, str], list[str]]:
    return lambda params, recipe: list(names)


def _rows(stage: str) -> Callable[[Params], tuple[str, ...]]:
    return lambda params: tuple(getattr(params.recipes, stage))


def _from(params: Params, recipe: str) -> Path:
    """The model that a recipe starts from."""
    return artifacts.model_dir(params.recipe[recipe].start or BASE)


EVALUATION_FILES = (
    "metrics.json",
    "benchmarks.json",
    "image_embeddings.npy",
    "text_embeddings.npy",
    "per_query.parquet",
    "per_class.parquet",
    "made_with.json",
)

STAGES = (
    Stage(
        "source_images",
        _source_images,
        settings=_section("source_images"),
        inputs=lambda params, recipe: [Path(path) for path in watched(params.source_images.sources)],
        outputs=lambda params, recipe: [artifacts.SOURCE_IMAGES],
    ),
    Stage(
        "curated_images",
        _curated_images,
        settings=_section("curated_images"),
        inputs=lambda params, recipe: [artifacts.SOURCE_IMAGES, Path(params.evaluation.benchmarks_root)],
        outputs=lambda params, recipe: [
            artifacts.CURATED_IMAGES,
            artifacts.REJECTED_IMAGES,
            artifacts.EXPECTATIONS,
            artifacts.NEAREST,
            artifacts.DROP,
            artifacts.NOTES,
        ],
    ),
    Stage(
        "base_clip",
        _base_clip,
        settings=_section("base_clip"),
        inputs=lambda params, recipe: [artifacts.CURATED_IMAGES],
        outputs=lambda params, recipe: [artifacts.model_dir(BASE)],
    ),
    Stage(
        "pseudo_captions",
        _pseudo_captions,
        settings=_section("pseudo_captions"),
        inputs=lambda params, recipe: [artifacts.CURATED_IMAGES, artifacts.model_dir(BASE)],
        outputs=lambda params, recipe: [artifacts.CAPTIONS, artifacts.IMAGE_CAPTIONS],
    ),
    Stage(
        "training_captions",
        _training_captions,
        settings=lambda params, recipe: [f"recipes.image_tower.{recipe}", "image_tower.caption_weight", "image_tower.captions"],
        inputs=lambda params, recipe: [artifacts.CAPTIONS, artifacts.IMAGE_CAPTIONS],
        outputs=lambda params, recipe: [artifacts.training_captions_dir(recipe)],
        recipes=_rows("image_tower"),
    ),
    Stage(
        "image_tower",
        _image_tower,
        settings=lambda params, recipe: [f"recipes.image_tower.{recipe}", "image_tower"],
        inputs=lambda params, recipe: [
            artifacts.CURATED_IMAGES,
            _from(params, recipe),
            artifacts.training_captions_dir(recipe),
        ],
        outputs=lambda params, recipe: [artifacts.model_dir(recipe), artifacts.history_file(recipe)],
        recipes=_rows("image_tower"),
    ),
    Stage(
        "text_tower",
        _text_tower,
        settings=lambda params, recipe: [f"recipes.text_tower.{recipe}", "text_tower"],
        inputs=lambda params, recipe: [artifacts.CURATED_IMAGES, _from(params, recipe)],
        outputs=lambda params, recipe: [artifacts.model_dir(recipe), artifacts.history_file(recipe)],
        recipes=_rows("text_tower"),
    ),
    Stage(
        "evaluation",
        _evaluation,
        settings=_section("evaluation"),
        inputs=lambda params, recipe: [
            artifacts.CURATED_IMAGES,
            artifacts.NEAREST,
            artifacts.model_dir(recipe),
            Path(params.evaluation.benchmarks_root),
        ],
        outputs=lambda params, recipe: [artifacts.evaluation_dir(recipe) / name for name in EVALUATION_FILES],
        recipes=lambda params: tuple(params.recipes.measured),
    ),
    Stage(
        "champion",
        _champion,
        settings=_section("evaluation"),
        inputs=lambda params, recipe: [artifacts.CHAMPION, artifacts.CURATED_IMAGES, artifacts.NEAREST],
        outputs=lambda params, recipe: [artifacts.CHAMPION_KEPT, artifacts.evaluation_dir(CHAMPION)],
    ),
    Stage(
        "promotion",
        _promotion,
        settings=_section("promotion", "recipes.measured"),
        inputs=lambda params, recipe: [artifacts.CURATED_IMAGES, artifacts.EVALUATION, artifacts.CHAMPION],
        outputs=lambda params, recipe: [artifacts.METRICS, artifacts.VERDICT],
    ),
    Stage(
        "report",
        _report,
        settings=_section("report", "promotion", "recipes"),
        inputs=lambda params, recipe: [
            artifacts.SOURCE_IMAGES,
            artifacts.CURATED_IMAGES,
            artifacts.REJECTED_IMAGES,
            artifacts.EXPECTATIONS,
            artifacts.NEAREST,
            artifacts.DROP,
            artifacts.NOTES,
            artifacts.model_dir(BASE) / artifacts.MODEL_CARD,
            artifacts.HISTORY,
            artifacts.EVALUATION,
            artifacts.METRICS,
            artifacts.VERDICT,
            artifacts.CHAMPION,
        ],
        outputs=lambda params, recipe: [artifacts.REPORT_PAGE, artifacts.CURATION_PAGE, artifacts.REPORT_MARKDOWN, artifacts.PLOTS],
    ),
    Stage(
        "search_table",
        _search_table,
        settings=_section("search_table", "promotion.recipe"),
        inputs=lambda params, recipe: [
            artifacts.CURATED_IMAGES,
            artifacts.REJECTED_IMAGES,
            artifacts.model_dir(params.promotion.recipe),
            artifacts.VERDICT,
        ],
        outputs=lambda params, recipe: [artifacts.LANCEDB, artifacts.TABLE_MANIFEST, artifacts.ACCEPTED],
    ),
    Stage(
        "export",
        _export,
        settings=_section("export", "promotion.recipe"),
        inputs=lambda params, recipe: [artifacts.CURATED_IMAGES, artifacts.model_dir(params.promotion.recipe)],
        outputs=lambda params, recipe: [artifacts.EXPORT],
    ),
)


def address(stage: Stage, recipe: str) -> str:
    """What dvc calls it: `stage`, or `stage@recipe` for a stage that has recipes."""
    return f"{stage.name}@{recipe}" if recipe else stage.name


def addresses(params: Params) -> dict[str, tuple[Stage, str]]:
    """Every stage and recipe by its address, in the order of the table."""
    return {address(stage, recipe): (stage, recipe) for stage in STAGES for recipe in stage.recipes(params)}


def find(wanted: str, params: Params) -> tuple[Stage, str]:
    """The stage and recipe of an address such as `evaluation@mcip_rea`."""
    known = addresses(params)
    if wanted not in known:
        raise UserError(f"unknown stage {wanted!r}. Known: {', '.join(known)}.")
    return known[wanted]
