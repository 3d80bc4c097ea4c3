"""The table of stages: which section of params.yaml each reads, its code, inputs and outputs, and what runs it.

The only module that sees the whole of params. dvc.yaml declares the same graph; tests/contracts keep the two equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from assets import artifacts
from assets.artifacts import RECIPES
from assets.errors import UserError
from assets.params import Params

# Each run function imports its package when called: listing the stages must not import torch.


def _source_images(params: Params, recipe: str) -> None:
    from assets.source_images.stage import make_source_images

    make_source_images(params.source_images)


def _curated_images(params: Params, recipe: str) -> None:
    from assets.curated_images.stage import make_curated_images

    make_curated_images(params.curated_images)


def _base_clip(params: Params, recipe: str) -> None:
    from assets.base_clip.stage import make_base_clip

    make_base_clip(params.base_clip)


def _pseudo_captions(params: Params, recipe: str) -> None:
    from assets.pseudo_captions.stage import make_pseudo_captions

    make_pseudo_captions(params.pseudo_captions)


def _image_tower(params: Params, recipe: str) -> None:
    from assets.image_tower.stage import train_image_tower

    train_image_tower(params.image_tower, recipe)


def _text_tower(params: Params, recipe: str) -> None:
    from assets.text_tower.stage import realign_text_tower

    realign_text_tower(params.text_tower, recipe)


def _evaluation(params: Params, recipe: str) -> None:
    from assets.evaluation.stage import evaluate

    evaluate(params.evaluation, recipe)


def _report(params: Params, recipe: str) -> None:
    from assets.report.stage import make_report

    make_report(params.report, params.promotion, params.search_table.recipe)


def _search_table(params: Params, recipe: str) -> None:
    from assets.search_table.stage import publish

    publish(params.search_table)


@dataclass(frozen=True)
class Stage:
    """One row. `recipes` are the stage's variants ("" where it has none); inputs and outputs are functions of the recipe.

    `params` lists what of params.yaml the stage depends on, as dvc does; `code` what of the source tree, without the shell around it
    (this module, params, artifacts, progress).
    """

    name: str
    run: Callable[[Params, str], None]
    params: tuple[str, ...]
    code: tuple[str, ...]
    inputs: Callable[[str, Params], list[Path]]
    outputs: Callable[[str], list[Path]]
    recipes: tuple[str, ...] = ("",)


TUNED = ("gpr", "mcip")

STAGES = (
    Stage(
        "source_images",
        _source_images,
        params=("source_images",),
        code=("assets/source_images",),
        inputs=lambda recipe, params: [
            artifacts.EMOJI_PACKAGES / "package.json",
            artifacts.EMOJI_PACKAGES / "package-lock.json",
            Path(params.source_images.image_folder.root),
        ],
        outputs=lambda recipe: [artifacts.SOURCE_IMAGES],
    ),
    Stage(
        "curated_images",
        _curated_images,
        params=("curated_images",),
        code=("assets/curated_images", "assets/clip/__init__.py", "assets/clip/decoding.py"),
        inputs=lambda recipe, params: [artifacts.SOURCE_IMAGES],
        outputs=lambda recipe: [artifacts.CURATED_IMAGES, artifacts.REJECTED_IMAGES, artifacts.EXPECTATIONS],
    ),
    Stage(
        "base_clip",
        _base_clip,
        params=("base_clip",),
        code=("assets/base_clip", "assets/training", "assets/embeddings.py", "assets/clip", "assets/metrics"),
        inputs=lambda recipe, params: [artifacts.CURATED_IMAGES],
        outputs=lambda recipe: [artifacts.model_dir("base")],
    ),
    Stage(
        "pseudo_captions",
        _pseudo_captions,
        params=("pseudo_captions",),
        code=("assets/pseudo_captions", "assets/embeddings.py", "assets/clip"),
        inputs=lambda recipe, params: [artifacts.CURATED_IMAGES, artifacts.model_dir("base")],
        outputs=lambda recipe: [artifacts.CAPTIONS, artifacts.IMAGE_CAPTIONS],
    ),
    Stage(
        "image_tower",
        _image_tower,
        params=("image_tower",),
        code=("assets/image_tower", "assets/training", "assets/embeddings.py", "assets/clip", "assets/metrics"),
        inputs=lambda recipe, params: [
            artifacts.CURATED_IMAGES,
            artifacts.model_dir("base"),
            artifacts.CAPTIONS,
            artifacts.IMAGE_CAPTIONS,
        ],
        outputs=lambda recipe: [artifacts.model_dir(recipe), artifacts.history_file(recipe)],
        recipes=TUNED,
    ),
    Stage(
        "text_tower",
        _text_tower,
        params=("text_tower",),
        code=("assets/text_tower", "assets/training", "assets/embeddings.py", "assets/clip", "assets/metrics"),
        inputs=lambda recipe, params: [artifacts.CURATED_IMAGES, artifacts.model_dir(recipe)],
        outputs=lambda recipe: [artifacts.model_dir(f"{recipe}_rea"), artifacts.history_file(f"{recipe}_rea")],
        recipes=TUNED,
    ),
    Stage(
        "evaluation",
        _evaluation,
        params=("evaluation",),
        code=("assets/evaluation", "assets/embeddings.py", "assets/clip", "assets/metrics", "assets/table_1.py"),
        inputs=lambda recipe, params: [
            artifacts.CURATED_IMAGES,
            artifacts.model_dir(recipe),
            Path(params.evaluation.benchmarks_root),
        ],
        outputs=lambda recipe: [
            artifacts.evaluation_dir(recipe) / name
            for name in (
                "metrics.json",
                "benchmarks.json",
                "image_embeddings.npy",
                "text_embeddings.npy",
                "per_query.parquet",
                "per_class.parquet",
                "settings.json",
            )
        ],
        recipes=RECIPES,
    ),
    Stage(
        "report",
        _report,
        params=("report", "promotion", "search_table.recipe"),
        code=("assets/report", "assets/metrics", "assets/table_1.py"),
        inputs=lambda recipe, params: [
            artifacts.CURATED_IMAGES,
            artifacts.REJECTED_IMAGES,
            *(artifacts.model_dir(each) for each in RECIPES),
            *(artifacts.evaluation_dir(each) for each in RECIPES),
            *(artifacts.history_file(each) for each in RECIPES if each != "base"),
            artifacts.CHAMPION,
        ],
        outputs=lambda recipe: [
            artifacts.METRICS,
            artifacts.VERDICT,
            artifacts.REPORT_PAGE,
            artifacts.REPORT_MARKDOWN,
            artifacts.PLOTS,
        ],
    ),
    Stage(
        "search_table",
        _search_table,
        params=("search_table",),
        code=("assets/search_table", "assets/embeddings.py", "assets/clip", "assets/metrics"),
        inputs=lambda recipe, params: [artifacts.CURATED_IMAGES, artifacts.model_dir(params.search_table.recipe), artifacts.VERDICT],
        outputs=lambda recipe: [artifacts.LANCEDB, artifacts.TABLE_MANIFEST],
    ),
)


def address(stage: Stage, recipe: str) -> str:
    """What dvc calls it: `stage`, or `stage@recipe` for a stage that has recipes."""
    return f"{stage.name}@{recipe}" if recipe else stage.name


def find(wanted: str) -> tuple[Stage, str]:
    """The stage and recipe of an address such as `evaluation@mcip_rea`."""
    known = {address(stage, recipe): (stage, recipe) for stage in STAGES for recipe in stage.recipes}
    if wanted not in known:
        raise UserError(f"unknown stage {wanted!r}. Known: {', '.join(known)}.")
    return known[wanted]
