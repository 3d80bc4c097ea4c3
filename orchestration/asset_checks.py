"""What must hold of the artefacts, as Dagster asset checks. Each reads artefacts and passes or fails; none changes anything.

A blocking check that fails keeps what follows in the same run from starting. Heavy libraries are imported when a check runs.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetExecutionContext,
    AssetKey,
    MetadataValue,
    asset_check,
)

from assets import artifacts
from assets.params import Orchestration, read_params
from assets.recipes import BASE
from orchestration.metadata import drop_table
from orchestration.record import asset_key
from orchestration.stage_assets import PipelineStage

SAMPLE = 8  # vectors embedded anew
SAME = {"fp32": 0.9999, "bf16": 0.99, "fp16": 0.99}  # least cosine of a vector and its fresh one in fp32, by search_table.precision
SHARES = {"share lost": "lost", "share of unknown tokens": "unknown_tokens"}  # of texts; lost: not read, or not told apart


@dataclass(frozen=True)
class Outcome:
    passed: bool
    said: str
    metadata: Mapping[str, MetadataValue]
    warning: bool = False  # a failure to look at, which stops nothing


@dataclass(frozen=True)
class Check:
    """`look` gets the checkout, the stage's recipe ("" where it has none) and the settings."""

    stage: str
    name: str
    blocking: bool
    description: str
    look: Callable[[Path, str, Orchestration], Outcome]
    loads_a_model: bool = False  # then only runs look, never a sensor


def _expectations(checkout: Path, recipe: str, settings: Orchestration) -> Outcome:
    return _met(artifacts.read_json(checkout / artifacts.EXPECTATIONS))


def _met(result: dict[str, Any]) -> Outcome:
    failed = [each for each in result["results"] if not each["success"]]
    lines = [f"| {'✓' if each['success'] else '✗'} | {each['meaning']} | {each['unexpected_count']} |" for each in result["results"]]
    return Outcome(
        result["success"],
        f"{len(result['results']) - len(failed)} of {len(result['results'])} expectations met"
        + "".join(f"; not: {each['meaning']}" for each in failed),
        {
            "expectations": MetadataValue.md("\n".join(["| met | expectation | rows against it |", "| --- | --- | --- |", *lines])),
            "ids against them": MetadataValue.json({each["meaning"]: each["unexpected_ids"][:20] for each in failed}),
        },
    )


def _drop(checkout: Path, recipe: str, settings: Orchestration) -> Outcome:
    return _looked_at(artifacts.read_json(checkout / artifacts.DROP))


def _looked_at(drop: dict[str, Any]) -> Outcome:
    if drop["decision"] is None:
        said = "nothing is new since the last publish, or nothing was published yet"
    else:
        beyond = [f"; {row['name']}: {row['share']:.0%} ({row['outcome']})" for row in drop["rows"] if row["outcome"] != "clear"]
        said = f"{drop['new']} new pictures and {drop['rejected']} rejected ones: {drop['decision']}{''.join(beyond)}"
    passed = drop["decision"] not in ("warn", "block")
    return Outcome(passed, said, {"drop": MetadataValue.md(drop_table(drop))}, warning=drop["decision"] == "warn")


def _no_leakage(checkout: Path, recipe: str, settings: Orchestration) -> Outcome:
    from assets.pictures.table import read_rows

    rows = read_rows(checkout / artifacts.CURATED_IMAGES, columns=["label", "family", "given_split", "sha256", "split"]).to_pylist()
    test = [row for row in rows if row["split"] == "test"]
    trained = [row for row in rows if row["split"] in ("train", "validation")]
    # a class may be on both sides where the source gives the split
    labels, families = (
        {row[name] for row in test if row["given_split"] is None} & {row[name] for row in trained if row["given_split"] is None}
        for name in ("label", "family")
    )
    files = {row["sha256"] for row in test} & {row["sha256"] for row in trained}
    return Outcome(
        not labels and not families and not files,
        f"{len(test)} test and {len(trained)} training pictures share {len(labels)} classes, {len(families)} families, {len(files)} files",
        {
            "classes": MetadataValue.json(sorted(labels)[:20]),
            "families": MetadataValue.json(sorted(families)[:20]),
            "files (SHA-256)": MetadataValue.json(sorted(files)[:20]),
        },
    )


def _readable(checkout: Path, recipe: str, settings: Orchestration) -> Outcome:
    kinds = artifacts.read_json(checkout / artifacts.model_dir(BASE) / artifacts.MODEL_CARD)["readable"]
    said = [sentence for kind in kinds for sentence in kind["said"]]
    shares = {f"{kind['what']}: {name}": kind[key] for kind in kinds for name, key in SHARES.items()}
    return Outcome(
        all(kind["lost"] <= settings.max_share_unreadable for kind in kinds),
        " ".join(said) or "all are read: " + ", ".join(f"{kind['texts']} {kind['what']}" for kind in kinds),
        {name: MetadataValue.float(share) for name, share in shares.items()}
        | {"allowed share lost": MetadataValue.float(settings.max_share_unreadable)},
        warning=True,
    )


def _captioned(checkout: Path, recipe: str, settings: Orchestration) -> Outcome:
    import pyarrow.parquet as pq

    images = pq.read_table(checkout / artifacts.IMAGE_CAPTIONS, columns=["id", "caption_ids"]).to_pylist()
    without = [row["id"] for row in images if not row["caption_ids"]]
    share = len(without) / max(1, len(images))
    allowed = settings.max_share_without_captions
    return Outcome(
        share <= allowed,
        f"{len(without)} of {len(images)} training pictures have no pseudo-caption; the allowed share is {allowed}",
        {"share": MetadataValue.float(share), "examples": MetadataValue.json(without[:20])},
        warning=True,
    )


def _loss(checkout: Path, recipe: str, settings: Orchestration) -> Outcome:
    return _falls(artifacts.read_json(checkout / artifacts.history_file(recipe))["rows"])


def _loss_of_base(checkout: Path, recipe: str, settings: Orchestration) -> Outcome:
    card = artifacts.read_json(checkout / artifacts.model_dir(BASE) / artifacts.MODEL_CARD)
    return _falls(card["alignment"]) if "alignment" in card else Outcome(True, "a checkpoint as it came: nothing was trained", {})


def _falls(rows: list[dict[str, Any]]) -> Outcome:
    losses = [row["loss"] for row in rows if row["epoch"] > 0]  # epoch 0 is the start
    shown = {"losses": MetadataValue.json(losses)}
    if not all(isinstance(loss, int | float) and math.isfinite(loss) for loss in losses):
        return Outcome(False, f"the loss is not finite: {losses}", shown)
    if len(losses) < 2:
        return Outcome(True, f"finite; {len(losses)} validation cannot show whether it falls", shown)
    return Outcome(losses[-1] < losses[0], f"from {losses[0]:.4g} to {losses[-1]:.4g} in {rows[-1]['epoch']} epochs", shown, warning=True)


def _unit_norm(checkout: Path, recipe: str, settings: Orchestration) -> Outcome:
    import numpy as np

    from assets.metrics.norms import NORM_TOLERANCE

    worst, zero = {}, {}
    for kind in ("image", "text"):
        norms = np.linalg.norm(np.load(checkout / artifacts.evaluation_dir(recipe) / f"{kind}_embeddings.npy").astype(np.float64), axis=1)
        zero[kind] = int((norms == 0).sum())
        norms = norms[norms != 0]
        worst[kind] = float(np.abs(norms - 1).max()) if norms.size else 0.0  # nan where a vector is not finite
    return Outcome(
        all(off <= NORM_TOLERANCE for off in worst.values()) and not zero["text"],
        f"{zero['image']} images and {zero['text']} texts have a zero embedding; of the others the norm furthest from 1 is off by"
        f" {max(worst.values(), key=lambda off: (math.isnan(off), off)):.2g}",
        {f"{kind}: largest |norm − 1|": MetadataValue.text(f"{off:.3g}") for kind, off in worst.items()},
    )


def _promotion_gate(checkout: Path, recipe: str, settings: Orchestration) -> Outcome:
    verdict = artifacts.read_json(checkout / artifacts.VERDICT)
    return Outcome(
        verdict["decision"] == "publish",
        f"{verdict['recipe']} against {verdict['against']}: {verdict['decision']}",
        {"reasons": MetadataValue.md("\n".join(f"- {reason}" for reason in verdict["reasons"]))},
    )


def _every_row(checkout: Path, recipe: str, settings: Orchestration) -> Outcome:
    import lancedb

    from assets.pictures.table import row_count

    curated = row_count(checkout / artifacts.CURATED_IMAGES)
    published = lancedb.connect(checkout / artifacts.LANCEDB).open_table(artifacts.TABLE_NAME).count_rows()
    left_out = artifacts.read_json(checkout / artifacts.TABLE_MANIFEST)["left_out"]
    return Outcome(
        published == curated - len(left_out),
        f"{published} rows for {curated} curated pictures" + (f", {len(left_out)} of them without an embedding" if left_out else ""),
        {"dagster/row_count": MetadataValue.int(published), "left out": MetadataValue.json(left_out)},
    )


def _fresh_vectors(checkout: Path, recipe: str, settings: Orchestration) -> Outcome:
    import lancedb
    import numpy as np

    from assets.clip.encoding import encode_images
    from assets.clip.model import load_clip
    from assets.pictures.decoding import decode
    from assets.search_table.table import MODELS

    table = lancedb.connect(checkout / artifacts.LANCEDB).open_table(artifacts.TABLE_NAME)
    rows = [
        row
        for offset in range(0, table.count_rows(), max(1, table.count_rows() // SAMPLE))[:SAMPLE]
        for row in table.search().select(["id", "image", "vector"]).limit(1).offset(offset).to_list()
    ]
    made_by = table.search().select(["model"]).limit(1).to_list()[0]["model"]
    precision = read_params(checkout / "params.yaml")[0].search_table.precision
    # kept beside the table: models/<recipe> may be another by now, after a training or a rollback
    model, preprocess, _ = load_clip(checkout / MODELS / made_by)
    images = [row["image"] for row in rows]
    fresh = encode_images(model, preprocess, images, decode, batch_size=SAMPLE, device="cpu", precision="fp32")
    cosines = (fresh.astype(np.float64) * np.array([row["vector"] for row in rows], dtype=np.float64)).sum(axis=1)
    far = [row["id"] for row, cosine in zip(rows, cosines, strict=True) if not cosine >= SAME[precision]]
    return Outcome(
        not far,
        f"{len(rows)} pictures embedded anew by {made_by}: the lowest cosine with the stored vector is {cosines.min():.6f}",
        {"too far": MetadataValue.json(far), f"allowed for {precision}": MetadataValue.float(SAME[precision])},
    )


UNIT_NORM = "Every embedding is finite and has norm 1; an image in which the model sees nothing may have a zero embedding."
SAME_VECTORS = (
    f"A sample of vectors equals what the model gives now: a cosine of {SAME['fp32']} for vectors of fp32, {SAME['bf16']} for others."
)
GATE = "The chosen recipe is not worse than what it is compared with, beyond the interval."
CHECKS = (
    Check("curated_images", "expectations", True, "The Great Expectations suite of the curated pictures.", _expectations),
    Check("curated_images", "drop", False, "What is new since the last publish is like what was accepted.", _drop),
    Check("curated_images", "no_leakage", True, "No class, family or file of the test split is in training or validation.", _no_leakage),
    Check("base_clip", "readable_text", False, "The base's text tower can read the class names and captions.", _readable),
    Check("pseudo_captions", "pictures_have_captions", False, "Few training pictures are without a pseudo-caption.", _captioned),
    Check("base_clip", "loss_falls", False, "The training loss is finite and lower at the end.", _loss_of_base),
    Check("image_tower", "loss_falls", False, "The training loss is finite and lower at the end.", _loss),
    Check("text_tower", "loss_falls", False, "The training loss is finite and lower at the end.", _loss),
    Check("evaluation", "unit_norm", True, UNIT_NORM, _unit_norm),
    # It does not block: the report, which shows why a recipe is held back, is drawn all the same, and search_table refuses by itself.
    Check("promotion", "promotion_gate", False, GATE, _promotion_gate),
    Check("search_table", "a_row_for_every_picture", False, "The table has a row for each curated picture with an embedding.", _every_row),
    Check("search_table", "vectors_are_the_model_s", False, SAME_VECTORS, _fresh_vectors, True),
)


def checks_of(stages: Iterable[PipelineStage], checkout: Path, settings: Orchestration) -> list[AssetChecksDefinition]:
    return [
        _definition(check, stage.address, checkout, settings)
        for stage in stages
        for check in CHECKS
        if check.stage == stage.address.partition("@")[0]
    ]


def _definition(check: Check, address: str, checkout: Path, settings: Orchestration) -> AssetChecksDefinition:
    @asset_check(asset=asset_key(address), name=check.name, blocking=check.blocking, description=check.description)
    def look(context: AssetCheckExecutionContext) -> AssetCheckResult:
        outcome = _look(check, checkout, address, settings)
        return AssetCheckResult(passed=outcome.passed, severity=_severity(outcome), description=outcome.said, metadata=outcome.metadata)

    return look


def evaluate(checkout: Path, settings: Orchestration, address: str) -> list[AssetCheckEvaluation]:
    """The checks of a stage that was made outside Dagster, without those that load a model."""
    return [
        _evaluation(check, asset_key(address), _look(check, checkout, address, settings))
        for check in CHECKS
        if check.stage == address.partition("@")[0] and not check.loads_a_model
    ]


def _look(check: Check, checkout: Path, address: str, settings: Orchestration) -> Outcome:
    try:
        return check.look(checkout, address.partition("@")[2], settings)
    except Exception as problem:  # of any library: an artefact that cannot be read fails its check
        return Outcome(False, f"the artefacts cannot be read: {type(problem).__name__}: {problem}", {})


def _evaluation(check: Check, key: AssetKey, outcome: Outcome) -> AssetCheckEvaluation:
    return AssetCheckEvaluation(
        asset_key=key,
        check_name=check.name,
        passed=outcome.passed,
        severity=_severity(outcome),
        description=outcome.said,
        metadata=outcome.metadata,
        blocking=check.blocking,
    )


def _severity(outcome: Outcome) -> AssetCheckSeverity:
    return AssetCheckSeverity.WARN if outcome.warning else AssetCheckSeverity.ERROR


def report_failed_expectations(checkout: Path, context: AssetExecutionContext, begun: float) -> None:
    """After a curated_images that failed: show the expectations or the drop that made it fail, which lie where dvc removes nothing."""
    for left, look, judge in ((artifacts.LAST_EXPECTATIONS, _expectations, _met), (artifacts.LAST_DROP, _drop, _looked_at)):
        path = checkout / left
        if path.exists() and path.stat().st_mtime >= begun:
            (check,) = [each for each in CHECKS if each.look is look]
            context.instance.report_runless_asset_event(_evaluation(check, context.asset_key, judge(artifacts.read_json(path))))
