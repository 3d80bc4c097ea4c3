"""The champion: what it keeps, and how later recipes are compared with it."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from assets import artifacts, params
from assets.commands.promote import promote
from assets.measures import GATED, PAIRED, SHOWN
from assets.promotion.champion import class_means, incomparable, paired_with_champion, split_digest
from assets.promotion.comparison import Bootstrap, paired_differences, query_families, query_values
from assets.promotion.stage import judge_recipes
from assets.report.stage import make_report
from tests.measured_run import ABOUT, RECIPES, measure

KEYS = [measure.key for measure in PAIRED]
BOOTSTRAP = Bootstrap(samples=500, level=0.95, seed=3)
TEST = "the digest of the test images"


def measured(seed: int) -> tuple[pa.Table, pa.Table]:
    """Random results on 60 images of 12 classes of unequal size, of which the last has one image and searches for nothing."""
    generator = np.random.default_rng(seed)
    labels = np.sort(np.append(np.random.default_rng(0).integers(11, size=59), 11)).astype(str)
    alone = labels == "11"
    precision = [None if lone else float(value) for lone, value in zip(alone, 100 * generator.random(60), strict=True)]
    hits = [None if lone else bool(value) for lone, value in zip(alone, generator.integers(2, size=60), strict=True)]
    right = generator.integers(2, size=(2, 60)).astype(bool)
    families = [f"family {int(label) // 2}" for label in labels]
    per_query = {"id": [str(n) for n in range(60)], "label": labels, "family": families, "average_precision": precision, "hit_at_1": hits}
    per_query |= {"knn_correct": right[0], "zero_shot_correct": right[1]}
    classes = sorted(set(labels))
    family_of = dict(zip(labels, families, strict=True))
    per_class = {"label": classes, "family": [family_of[label] for label in classes]}
    return pa.table(per_query), pa.table(per_class | {"recall_at_5": 100 * generator.random(len(classes))})


def test_what_a_champion_keeps_pairs_as_well_as_its_queries():
    champion, recipe = measured(1), measured(2)
    kept = {"paired": class_means(*champion, TEST)}
    expected = paired_differences(query_values(*recipe), query_values(*champion), query_families(*recipe), BOOTSTRAP)
    found = paired_with_champion(kept, *recipe, TEST, BOOTSTRAP)
    assert found is not None
    assert set(found) == {*KEYS, "average"}
    for key, difference in expected.items():
        assert tuple(found[key]) == pytest.approx(tuple(difference), abs=1e-3)  # means are kept to four digits


def test_a_champion_is_a_tie_with_itself_whatever_was_rounded():
    per_query, per_class = measured(1)
    thirds = pa.array([None if each is None else 200 / 3 for each in per_query["average_precision"].to_pylist()])
    per_query = per_query.set_column(per_query.schema.get_field_index("average_precision"), "average_precision", thirds)
    found = paired_with_champion({"paired": class_means(per_query, per_class, TEST)}, per_query, per_class, TEST, BOOTSTRAP)
    assert found == dict.fromkeys((*KEYS, "average"), (0, 0, 0))


def test_a_champion_of_other_images_or_without_class_means_is_not_paired():
    recipe = measured(2)
    kept = class_means(*recipe, TEST)
    assert paired_with_champion({"paired": kept}, *recipe, TEST, BOOTSTRAP) is not None
    assert paired_with_champion({"paired": kept}, *recipe, "of others", BOOTSTRAP) is None
    assert paired_with_champion({"paired": kept | {"measures": ["knn.accuracy"]}}, *recipe, TEST, BOOTSTRAP) is None
    assert paired_with_champion({"recipe": "gpr", "metrics": {}}, *recipe, TEST, BOOTSTRAP) is None


def test_the_digest_is_of_the_images_their_classes_and_names_in_any_order():
    rows = {"id": ["1", "2"], "label": ["a", "b"], "class_name": ["ant", "bee"], "sha256": ["0", "1"], "source": ["x", "x"]}
    digest = split_digest(pa.table(rows))
    assert split_digest(pa.table({name: values[::-1] for name, values in rows.items()})) == digest
    assert split_digest(pa.table(rows | {"source": ["y", "y"]})) == digest
    for name in ("id", "label", "class_name", "sha256"):
        assert split_digest(pa.table(rows | {name: ["other", rows[name][1]]})) != digest


MEASURED_WITH: dict[str, Any] = {
    "evaluation.precision": "fp32", "evaluation.knn_k": 21, "evaluation.knn_temperature": 0.1, "evaluation.prompts": ["{}", "a {}"],
    "evaluation.confidence": 0.95, "evaluation.seed": 0, "evaluation.bootstrap_samples": 1000,
}  # fmt: skip
EVERY = {measure.key for measure in SHOWN}
UNPAIRED = "text_to_image.caption_recall_at_5"


@pytest.mark.parametrize(
    ("changes", "unlike"),
    [
        ({"prompts": ["{}"]}, {"zero_shot.accuracy", "average"}),
        ({"knn_k": 5}, {"knn.accuracy", "average"}),
        ({"knn_temperature": 1.0}, {"knn.accuracy", "average"}),
        ({"precision": "bf16"}, EVERY),
        ({"confidence": 0.8}, {UNPAIRED}),  # differences in pairs are judged at today's level, whatever the champion's was
        ({"seed": 1, "bootstrap_samples": 200}, set()),
        ({}, set()),
    ],
)
def test_what_a_changed_setting_makes_incomparable(changes, unlike):
    now = MEASURED_WITH | {f"evaluation.{name}": value for name, value in changes.items()}
    assert incomparable(MEASURED_WITH, now, EVERY - {UNPAIRED}).keys() == unlike
    # intervals of two levels cannot be held against each other
    assert incomparable(MEASURED_WITH, now, ()).keys() == (EVERY if "confidence" in changes else unlike)


def test_every_changed_setting_is_named_and_one_that_the_champion_did_not_keep_counts_as_unchanged():
    now = MEASURED_WITH | {"evaluation.knn_k": 5, "evaluation.knn_temperature": 1.0}
    said = "not comparable: evaluation.knn_k and evaluation.knn_temperature changed since the champion was measured"
    assert incomparable(MEASURED_WITH, now, EVERY)["knn.accuracy"] == said
    assert incomparable({"image_tower.lr": 1e-4}, now, EVERY) == {}


def judged(promotion: params.Promotion, **changes: Any) -> dict[str, Any]:
    judge_recipes(promotion.model_copy(update=changes), RECIPES)
    return artifacts.read_json(artifacts.VERDICT)


def test_from_one_champion_to_the_next(inputs, promotion):
    # captions are asked for and there are none: nobody can judge that, so a person says why it is published all the same
    inputs(captions=False)
    asked = {"must_not_fall": {"caption_to_image": 0.0}, "override_reason": "there are no captions"}
    verdict = judged(promotion, recipe="gpr", **asked)
    assert "caption→image R@5 cannot be judged, and promotion names it." in verdict["reasons"]
    assert promote()["override_reason"] == "there are no captions"

    # the next ones are compared with it on the same images: the realigned one has the same image tower and another text tower
    verdict = judged(promotion, recipe="gpr_rea", against="champion", must_rise={"image_to_image": 0.0})
    assert (verdict["against"], verdict["decision"]) == ("champion", "hold")
    assert "paired" in verdict["reasons"][1]
    found = verdict["families"]["image_to_image"]
    assert (found["difference"], found["interval"], found["outcome"]) == (0, [0, 0], "tie")
    assert verdict["must_rise"]["image_to_image"]["rose"] is False


def test_a_family_that_is_measured_otherwise_is_not_judged_against_the_champion(finished_run, tmp_path, monkeypatch, settings, promotion):
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    kept = promote()["settings"]
    assert (kept["evaluation.knn_k"], kept["evaluation.prompts"]) == (3, ["{}"])
    measure("mcip_rea", prompts=["{}", "an icon of {}"])

    verdict = judged(promotion, against="champion")
    why = "not comparable: evaluation.prompts changed since the champion was measured"
    assert verdict["unjudged"] == {"zero_shot": why}
    assert verdict["incomparable"] == {"zero_shot.accuracy": why, "average": why}
    assert verdict["families"].keys() == GATED.keys() - {"zero_shot", "caption_to_image"}
    assert verdict["decision"] == "hold"
    assert verdict["reasons"][-1] == "zero-shot cannot be judged, and promotion names it."

    few = settings.model_copy(update={"queries": 1, "worst_failures": 1})
    make_report(few, promotion.model_copy(update={"against": "champion"}), ABOUT, RECIPES)
    rows = [line.split(" | ") for line in artifacts.REPORT_MARKDOWN.read_text(encoding="utf-8").splitlines() if " | " in line]
    points = {row[0].removeprefix("| "): row[3] for row in rows if len(row) == 6}
    assert (points["zero-shot"], points["average"], points["k-NN"]) == ("–", "–", "±0.0")
    assert any(row[0] == "| `evaluation.prompts`" for row in rows)
