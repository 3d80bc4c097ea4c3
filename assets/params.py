"""params.yaml, typed: one frozen class for each section. Unknown keys fail, every key must be given, bounds are checked.

The values are in params.yaml alone, and what they do is explained there. Nothing here has a default; only a source may go without a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)
from ruamel.yaml.error import YAMLError

from assets import recipes as recipe_rows
from assets.addresses import has_secret, is_remote
from assets.artifacts import LANCEDB, read_yaml
from assets.errors import UserError
from assets.measures import GATED
from assets.recipes import Recipe, WrongRecipes

PARAMS_FILE = Path("params.yaml")
VARIANTS = {
    "base_clip": ("demo", "open_clip"),
    "source_images": ("emoji", "image_folder", "table", "webdataset", "hugging_face", "lance"),
    "engine": ("local", "ray"),
}

Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="where to compute; auto takes cuda, then mps, then cpu")]
Precision = Literal["fp32", "bf16", "fp16"]
Fraction = Annotated[float, Field(ge=0, le=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Captions = Literal["own", "found", "both"]


def _known_families(points: dict[str, float]) -> dict[str, float]:
    if unknown := [family for family in points if family not in GATED]:
        raise ValueError(f"no family of measures is called {', '.join(map(repr, unknown))}; known are {', '.join(map(repr, GATED))}")
    return points


Points = Annotated[dict[str, NonNegativeFloat], AfterValidator(_known_families)]  # percentage points by family


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^\w[\w .-]*$")]


WITHOUT_SECRETS = (
    "Give credentials in the environment (for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE): params.yaml is read by all."
)


def _without_secret(place: str) -> str:
    if has_secret(place):
        raise ValueError(f"holds a password or key. {WITHOUT_SECRETS}")
    return place


Place = Annotated[Text, AfterValidator(_without_secret)]  # a path, or an address that fsspec opens


class AnySource(Section):
    """What every kind of source has. `name` and `labels` may be left out: they tell several sources apart."""

    name: Name | None = None
    labels: Name | None = None
    root: Place  # of the emoji a path


class Emoji(AnySource):  # its root: the folder of package.json and package-lock.json
    kind: Literal["emoji"]
    size: Annotated[int, Field(ge=16, le=1024)]  # pixels
    vendors: Annotated[list[str], Field(min_length=1)]


LEVELS = ("label", "family, label", "split, label", "split, family, label")  # of folders, outermost first


def _known_levels(folders: list[str]) -> list[str]:
    if ", ".join(folders) not in LEVELS:
        raise ValueError(f"must be {' or '.join(f'[{each}]' for each in LEVELS)}")
    return folders


class ImageFolder(AnySource):
    kind: Literal["image_folder"]
    folders: Annotated[list[str], AfterValidator(_known_levels)]  # outermost first
    license: str
    attribution: str


Column = Literal["id", "label", "class_name", "group", "family", "split", "captions", "license", "attribution"]


def _with_image(columns: dict[str, str]) -> dict[str, str]:
    if "image" not in columns:
        raise ValueError("must name the column of the pictures: {image: …}")
    return columns


Columns = Annotated[dict[Column | Literal["image"], Text], AfterValidator(_with_image)]  # what a column is → how the source calls it


class Table(AnySource):
    kind: Literal["table"]
    pictures: Place | None  # the folder of the files that the column image names; null: the column holds the pictures
    columns: Columns
    license: str
    attribution: str


class WebDataset(AnySource):
    kind: Literal["webdataset"]
    columns: dict[Column, Text]
    license: str
    attribution: str


class HuggingFace(AnySource):
    kind: Literal["hugging_face"]
    columns: Columns
    license: str
    attribution: str


class Lance(AnySource):
    kind: Literal["lance"]
    columns: Columns
    license: str
    attribution: str


Records = Table | WebDataset | HuggingFace | Lance  # the kinds whose pictures are rows with columns
Source = Annotated[Emoji | ImageFolder | Records, Field(discriminator="kind")]


class SourceImages(Section):
    sources: Annotated[list[Source], Field(min_length=1)]


DropMeasure = Literal["rejected", "new_labels", "sizes", "brightness", "captions", "unlike"]


class Drop(Section):
    """When pictures that are new since the last publish warn, or end the stage: by the share of them that is unusual."""

    warn: dict[DropMeasure, Fraction]
    block: dict[DropMeasure, Fraction]
    min_pictures: PositiveInt  # of fewer nothing is judged
    accepted: Text | None  # the name of a drop that block would hold back


def _patterns(written: list[str]) -> list[str]:
    for each in written:
        try:
            re.compile(each)
        except re.error as error:
            raise ValueError(f"{each!r} is not a regular expression: {error}") from None
    return written


class CuratedImages(Section):
    seed: Seed
    max_megapixels: PositiveFloat
    max_decode_seconds: PositiveFloat  # for one picture
    min_side: PositiveInt  # pixels
    max_aspect_ratio: Annotated[float, Field(ge=1)] | None  # of the longer side to the shorter; null: any
    blank_range: Annotated[int, Field(ge=0, le=255)] | None  # levels of 255 between a channel's extremes; null: blank pictures are kept
    licenses: Annotated[list[Text], Field(min_length=1)] | None  # that are kept; null: all
    max_caption_characters: Annotated[int, Field(ge=10)]
    boilerplate_captions: Annotated[list[Text], AfterValidator(_patterns)]  # regular expressions of whole captions
    near_duplicates: Literal["list", "drop", "ignore"]
    near_duplicate_bits: Annotated[int, Field(ge=0, le=64)]  # of 256 bits that differ
    min_images_per_class: Annotated[int, Field(ge=2)]  # a class with one picture has nothing to retrieve
    test_fraction: OpenFraction  # of the families
    validation_classes: Annotated[float, Field(ge=0, lt=0.5)]  # of the other families
    validation_pictures: Annotated[float, Field(ge=0, lt=0.5)]  # of the training classes' pictures
    min_difference_to_test: Annotated[float, Field(ge=0, lt=1)]  # of white to black
    drop: Drop


def _ordered(bounds: list[float]) -> list[float]:
    if not 0 < bounds[0] <= bounds[1]:
        raise ValueError("must be [low, high] with 0 < low <= high")
    return bounds


class Augmentation(Section):
    rotation_degrees: Annotated[float, Field(ge=0, le=180)]
    scale: Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ordered)]
    shift: Annotated[float, Field(ge=0, le=0.5)]  # of the side
    flip: bool
    color_mixing: Fraction  # strength of a random mixing of the three channels
    grey: Fraction  # share of images turned part grey


class Guards(Section):
    """Limits at which a training run stops; null: not watched. What each measures: assets/training/guards.py."""

    max_loss_growth: Annotated[float, Field(gt=1)] | None  # times the loss of the first steps
    max_gradient_growth: Annotated[float, Field(gt=1)] | None  # times the gradient norm of the first steps
    min_spread: OpenFraction | None  # of validation embeddings, as a share of that at the start
    min_cosine_to_start: Annotated[float, Field(gt=-1, lt=1)] | None  # mean over the validation embeddings
    min_text_to_image: OpenFraction | None  # validation mAP, as a share of that at the start
    max_logit_scale_change: Annotated[float, Field(gt=1)] | None  # up or down, as a multiple of that at the start


class Training(Section):
    """How every training runs. Results depend on it by rounding at most, so dvc does not watch it."""

    processes: PositiveInt  # that share each batch of image_tower and text_tower
    compile: bool
    checkpoint_minutes: NonNegativeFloat  # between two saved states within an epoch; 0: one after every step


class LocalEngine(Section):
    kind: Literal["local"]


def _of_a_cluster(address: str) -> str:
    if address.startswith(("http://", "https://", "ray://")):
        raise ValueError(
            "this is the address of a job server or a Ray client. The stage is a driver of the cluster itself: run it where the cluster's"
            " machines can be reached, and give the head's own address, such as head:6379"
        )
    if address not in ("auto", "local") and not re.fullmatch(r"[\w.-]+:\d+", address):
        raise ValueError("must be auto, local, or the host and port of the cluster's head, such as head:6379")
    return address


class RayEngine(Section):
    kind: Literal["ray"]
    address: Annotated[str, AfterValidator(_of_a_cluster)]
    workers: PositiveInt
    cpus: PositiveInt  # of each worker
    retries: Annotated[int, Field(ge=0, le=100)]
    patience_seconds: PositiveFloat


Engine = Annotated[LocalEngine | RayEngine, Field(discriminator="kind")]


class Optimization(Section):
    """The settings that every training has, base_clip's included."""

    seed: Seed
    device: Device
    precision: Precision
    steps: PositiveInt  # of the optimiser, at least
    epochs: PositiveInt  # at least
    validations: PositiveInt  # at most
    min_validation_pictures: PositiveInt  # by fewer nothing is chosen
    batch_size: Annotated[int, Field(ge=2)]
    max_batch_share: Annotated[float, Field(gt=0, le=1)]  # of the training pictures
    final_lr_fraction: Fraction  # of the peak learning rate
    weight_decay: NonNegativeFloat
    warmup_fraction: Fraction  # of all steps
    gradient_clip_norm: PositiveFloat | None  # null: gradients are not clipped
    accumulate: PositiveInt  # batches per step of the optimiser
    ema_decay: OpenFraction | None  # per step, of the moving average of the weights; null: none
    gradient_checkpointing: bool
    guards: Guards


class Lora(Section):
    """Low-rank adapters on a tower's attention and MLP layers (arXiv 2106.09685)."""

    rank: PositiveInt
    alpha: PositiveInt  # adapters count alpha / rank times
    dropout: Annotated[float, Field(ge=0, lt=1)]


class TowerTraining(Optimization):
    """The settings of the two stages that tune a tower: which of its parameters train. The projection into the joint space always does."""

    trains: Literal["projection", "last_groups", "all", "lora"]
    unlocked_groups: PositiveInt
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    lora: Lora
    way_back: list[OpenFraction]  # shares of what training changed; empty: none is tried
    keep: Literal["best"] | Annotated[float, Field(gt=0, le=1)]  # by validation, or that share of what training changed


class DemoClip(Optimization):
    source: Literal["demo"]
    image_size: Annotated[int, Field(ge=32, le=512)]  # pixels
    batch_norm_from: PositiveInt  # pictures of a batch
    unlocked_groups: Annotated[int, Field(ge=1, le=17)]
    candidate_captions: PositiveInt  # that a picture is compared with in a step
    image_tower_lr: LearningRate
    projection_lr: LearningRate
    augmentation: Augmentation


class OpenClip(Section):
    source: Literal["open_clip"]
    model: Annotated[str, Field(min_length=1)]
    pretrained: Annotated[str, Field(min_length=1)]  # a tag of open_clip's, or a checkpoint file (.safetensors, .pt)
    resize: Literal["own", "squash"]


BaseClip = Annotated[DemoClip | OpenClip, Field(discriminator="source")]


class PseudoCaptions(Section):
    seed: Seed
    device: Device
    precision: Precision
    extra_corpora: list[str]
    clusters_per_caption: Annotated[float, Field(gt=0, le=1)]
    max_clusters: PositiveInt
    top_k: PositiveInt
    min_z: float  # standard deviations


class ImageTower(TowerTraining):
    lr: LearningRate
    class_centers_lr: LearningRate
    scale: PositiveFloat
    margin: Annotated[float, Field(ge=0, lt=1.5)]  # rad
    caption_weight: Fraction  # of the multi-caption loss; 0: class labels alone
    captions: Captions  # that the multi-caption loss takes as a picture's
    sampled_classes: PositiveInt | None  # classes in one step's class loss, the batch's own included; null: all
    images_per_class: Annotated[int, Field(ge=2)] | None  # in a batch; null: a batch is drawn without regard to classes
    batch_norm_from: PositiveInt  # pictures of a batch
    patch_dropout: Annotated[float, Field(ge=0, lt=1)]  # share of a picture's patches left out
    augmentation: Augmentation


class TextTower(TowerTraining):
    loss: Literal["base", "info_nce"]  # base: the one that the base was trained with
    lr: LearningRate
    relation_weight: NonNegativeFloat  # of the divergence from the texts' own geometry, beside the contrastive loss; 0: free to change
    relation_temperature: PositiveFloat
    views: PositiveInt  # of each training picture
    augmentation: Augmentation


def _has_slot(prompts: list[str]) -> list[str]:
    if bad := [p for p in prompts if p.count("{}") != 1]:
        raise ValueError(f"each prompt needs exactly one {{}} for the class name; not so: {bad}")
    return prompts


class Evaluation(Section):
    seed: Seed
    device: Device
    precision: Precision
    batch_size: PositiveInt
    knn_k: PositiveInt
    knn_temperature: PositiveFloat
    bootstrap_samples: Annotated[int, Field(ge=100)]
    confidence: OpenFraction
    sibling_correlation: Annotated[float, Field(gt=0, le=1)]
    prompts: Annotated[list[str], Field(min_length=1), AfterValidator(_has_slot)]
    benchmarks_root: Annotated[str, Field(min_length=1)]


class Report(Section):
    seed: Seed
    queries: PositiveInt
    top_k: PositiveInt
    worst_failures: PositiveInt
    changed_classes: PositiveInt
    siblings: PositiveInt
    map_images: Annotated[int, Field(ge=2, le=5000)]


class Promotion(Section):
    recipe: str
    pairs: list[Annotated[list[str], Field(min_length=2, max_length=2)]]  # [recipe, the one it is compared with]
    against: Literal["base", "champion"]
    seed: Seed
    bootstrap_samples: Annotated[int, Field(ge=100)]  # for differences between recipes
    must_not_fall: Points
    must_rise: Points
    override_reason: str | None  # why a recipe that the gate holds back is published all the same


class SearchTable(Section):
    device: Device
    precision: Precision
    batch_size: PositiveInt
    max_share_left_out: Fraction
    vectors: Literal["float32", "float16"]
    index: Literal["IVF_SQ", "IVF_PQ", "IVF_HNSW_SQ", "IVF_RQ"]
    index_from_rows: PositiveInt
    refine_factor: PositiveInt
    min_recall: Fraction
    kept_publishes: PositiveInt
    kept_days: NonNegativeFloat


class Export(Section):
    """The model taken elsewhere, as ONNX graphs."""

    sample: Annotated[int, Field(ge=10)]  # pictures
    calibration_pictures: PositiveInt
    min_cosine: Annotated[float, Field(gt=0, le=1)]
    max_recall_lost: NonNegativeFloat  # percentage points


def _published_or_shared(place: str) -> str:
    if place != str(LANCEDB) and not is_remote(place):
        raise ValueError(f"must be {LANCEDB}, or an address such as s3://bucket/lancedb to which `make share` copied the table")
    return place.rstrip("/")


class Search(Section):
    """Queries of the published table. No stage reads it."""

    table: Annotated[Place, AfterValidator(_published_or_shared)]  # data/lancedb, or an address
    towers: Literal["fp32", "int8", "torch"]  # graphs of the stage export, or the model itself
    near_identical: Annotated[float, Field(gt=0, le=1)]  # cosine
    port: Annotated[int, Field(ge=0, le=65535)]
    max_upload_megabytes: PositiveFloat
    max_query_characters: PositiveInt
    max_hits: PositiveInt  # of one request, skipped ones included
    max_connections: PositiveInt
    patience_seconds: PositiveFloat


class Orchestration(Section):
    retrain_cron: Annotated[str, Field(min_length=9)]
    time_zone: str
    retrain_from_new_images: PositiveInt
    stale_after_days: PositiveFloat
    retries: Annotated[int, Field(ge=0, le=10)]
    retry_delay_seconds: PositiveFloat
    max_share_without_captions: Fraction
    max_share_unreadable: Fraction  # of the class names, and of the captions
    failure_webhook: Annotated[str, Field(pattern=r"^https?://")] | None


class Recipes(Section):
    """The models that the pipeline makes, by the stage that makes each. What a row may hold: assets/recipes.py."""

    image_tower: dict[str, dict[str, Any]]
    text_tower: dict[str, dict[str, Any]]
    measured: Annotated[list[str], Field(min_length=1)]  # the rows of every table, in this order


class Params(Section):
    source_images: SourceImages
    curated_images: CuratedImages
    base_clip: BaseClip
    pseudo_captions: PseudoCaptions
    recipes: Recipes
    engine: Engine
    training: Training
    image_tower: ImageTower
    text_tower: TextTower
    evaluation: Evaluation
    promotion: Promotion
    report: Report
    search_table: SearchTable
    export: Export
    search: Search
    orchestration: Orchestration

    @cached_property
    def recipe(self) -> dict[str, Recipe]:
        """Every recipe by name, base first; raises WrongRecipes."""
        rows = {"image_tower": self.recipes.image_tower, "text_tower": self.recipes.text_tower}
        return recipe_rows.resolve(rows, self.recipes.measured, {stage: getattr(self, stage) for stage in rows})


def read_params(path: Path = PARAMS_FILE) -> tuple[Params, dict[str, Any]]:
    """The settings, typed and as written. Raises UserError for a file that cannot be read, and one that names every wrong setting."""
    try:
        written = read_yaml(path)
    except FileNotFoundError:
        raise UserError(f"no {path} in {Path.cwd()}. Run from the checkout's top folder.") from None
    except YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    return checked_params(written, str(path)), written


def checked_params(written: Any, named: str) -> Params:
    """Settings as written, typed; raises a UserError that starts with `named`, such as the file, and names every wrong setting."""
    try:
        params = Params.model_validate(written)
    except ValidationError as error:
        raise _wrong(named, [_describe(problem) for problem in error.errors()]) from None
    if problems := list(_across_sections(params)):
        raise _wrong(named, [f"{where}: {what}" for where, what in problems])
    return params


def _across_sections(params: Params) -> Iterator[tuple[str, str]]:
    """(setting, problem) for settings that do not fit together."""
    yield from _sources_alike(params.source_images.sources)
    try:
        recipes = params.recipe
    except WrongRecipes as wrong:
        yield from wrong.problems
        return
    if params.promotion.recipe not in params.recipes.measured:
        yield "promotion.recipe", f"given {params.promotion.recipe!r}; recipes.measured has {', '.join(params.recipes.measured)}"
    for number, pair in enumerate(params.promotion.pairs):
        for name in pair:
            if name not in params.recipes.measured:
                yield f"promotion.pairs[{number}]", f"given {name!r}; recipes.measured has {', '.join(params.recipes.measured)}"
        if len(set(pair)) == 1:
            yield f"promotion.pairs[{number}]", f"given {pair[0]!r} twice; a pair is of two recipes"
    processes = params.training.processes
    for recipe in recipes.values():
        if processes == 1 or recipe.settings is None:
            continue
        if recipe.settings.precision == "fp16":
            yield "training.processes", f"given {processes}; {recipe.name} has precision fp16, which only one process can train. Use bf16"
        if recipe.settings.batch_size % processes:
            yield (
                "training.processes",
                f"given {processes}; the batch_size of {recipe.name} must be a multiple, and is {recipe.settings.batch_size}",
            )


def _sources_alike(sources: list[Any]) -> Iterator[tuple[str, str]]:
    names = [source.name for source in sources]
    for number, source in enumerate(sources):
        if source.name is None and (source.labels or len(sources) > 1):
            yield f"source_images.sources[{number}].name", "missing; of several sources each has a name, with which its ids begin"
        elif source.name in names[:number]:
            yield f"source_images.sources[{number}].name", f"given {source.name!r} twice; of several sources each has a name of its own"
        own = [each.name for each in sources if each.name is not None and each.labels in (None, each.name)]
        if source.labels is not None and source.labels not in own:
            yield (
                f"source_images.sources[{number}].labels",
                f"given {source.labels!r}; it names a source whose labels are its own: {', '.join(map(repr, own)) or 'none is'}",
            )


def _wrong(named: str, problems: list[str]) -> UserError:
    count = "one wrong setting" if len(problems) == 1 else f"{len(problems)} wrong settings"
    lines = "\n".join(f"  {problem}" for problem in problems)
    return UserError(f"{named} has {count}:\n{lines}\nWhat each means is in params.yaml; its bounds are in assets/params.py.")


def _describe(problem: Any) -> str:
    if not problem["loc"]:
        return f"the file must hold sections of settings, and holds {problem['input']!r}"
    where = _where(problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{where}: no such setting (misspelt?)"
    if problem["type"] == "missing":
        return f"{where}: missing"
    if problem["type"].startswith("union_tag"):
        return f"{where}.{'source' if where == 'base_clip' else 'kind'}: {problem['msg']}"
    return f"{where}: given {problem['input']!r}; {problem['msg']}"


def _where(location: tuple[int | str, ...]) -> str:
    """A setting's name as people write it: `source_images.sources[0].root`."""
    section, *inside = location
    if section in VARIANTS:  # pydantic puts the chosen variant into the location
        inside = [part for part in inside if part not in VARIANTS[section]]
    return str(section) + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in inside)
