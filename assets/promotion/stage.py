"""Stage promotion: every measured recipe side by side, and the verdict on the one that is to be published. Numbers only.

Measuring is evaluation's, drawing the report's, publishing search_table's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from assets import artifacts, params
from assets.evaluations import Evaluation, read_evaluation, read_test_split
from assets.measures import MEASURE_OF, PAIRED
from assets.metrics.bootstrap import PairedDifference, too_few
from assets.promotion import comparison
from assets.promotion.champion import Champion, read_champion, split_digest
from assets.promotion.comparison import Bootstrap
from assets.promotion.gate import AgainstChampion, decide
from assets.recipes import BASE, CHAMPION

logger = logging.getLogger(__name__)

GROUPED = MEASURE_OF["image_to_image.map"]  # shown by group


def judge_recipes(settings: params.Promotion, measured: list[str]) -> None:
    """Write metrics.json (rows, pairs, counts, groups; percent) and verdict.json of data/promotion.

    `measured`: the recipes, in the order of the rows; base and `settings.recipe` are among them.
    """
    test = read_test_split()
    evaluations = {recipe: read_evaluation(recipe, test) for recipe in measured}
    champion = read_champion(artifacts.read_json(artifacts.CHAMPION), test)
    judged, base = evaluations[settings.recipe], evaluations[BASE]

    bootstrap = Bootstrap(settings.bootstrap_samples, judged.level, settings.seed)
    rows, differences = compare_with_base(evaluations, bootstrap)
    pairs = compare_pairs(settings.pairs, evaluations, bootstrap)
    against = None
    if champion is not None:
        against = compare_with_champion(judged, champion, len(test.classes), bootstrap)
        rows[CHAMPION] = champion_row(champion, base, bootstrap)
        pairs.append(
            {
                "recipe": judged.recipe,
                "against": CHAMPION,
                "differences": as_json(against.differences),
                "without_siblings": as_json(differences_without_siblings(judged, champion.evaluation, bootstrap, champion.asked)),
            }
        )
    verdict = decide(rows[judged.recipe], rows[BASE], differences[judged.recipe], against, settings)
    # what `make promote` makes the champion, and what search_table may publish
    verdict |= {"model_sha256": judged.made_with["model_sha256"], "test_sha256": split_digest(test.rows)}
    found = {
        "rows": list(rows.values()),
        "pairs": pairs,
        "counts": judged.metrics["counts"],
        "groups": compare_groups(base, judged, bootstrap),
    }
    artifacts.write_json(artifacts.METRICS, found)
    artifacts.write_json(artifacts.VERDICT, verdict)
    families = len(set(test.families))
    if too_few(families, judged.level):
        logger.warning("%d family(ies) of test classes are too few to tell a difference from chance, so all are ties", families)
    logger.info("%s %s: %s", verdict["decision"], judged.recipe, " ".join(verdict["reasons"]))


def compare_with_base(
    evaluations: Mapping[str, Evaluation], bootstrap: Bootstrap
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, PairedDifference]]]:
    """By recipe: the row of metrics.json, with its differences to base in `confidence`, and those without siblings in `without_siblings`;
    and the former by measure.
    """
    rows, differences = {}, {}
    for recipe, each in evaluations.items():
        differences[recipe] = differences_of(each, evaluations[BASE], bootstrap)
        row = {key: value for key, value in each.metrics.items() if key != "counts"}
        apart = as_json(differences_without_siblings(each, evaluations[BASE], bootstrap))
        rows[recipe] = row | {
            "confidence": each.metrics["confidence"] | {"against_base": as_json(differences[recipe])},
            "without_siblings": each.metrics["without_siblings"] | {"against_base": apart},
        }
    return rows, differences


def compare_with_champion(judged: Evaluation, champion: Champion, classes: int, bootstrap: Bootstrap) -> AgainstChampion:
    """The judged recipe and the champion on the test classes that the champion has not seen."""
    differences = (
        differences_of(judged, champion.evaluation, bootstrap)
        if champion.asked.all()
        else differences_over(judged, champion.evaluation, champion.asked, bootstrap)
    )
    return AgainstChampion(
        champion.row(champion.evaluation),
        champion.row(judged),
        differences,
        champion.notes(classes),
        itself=judged.made_with["model_sha256"] == champion.model_sha256,
    )


def champion_row(champion: Champion, base: Evaluation, bootstrap: Bootstrap) -> dict[str, Any]:
    """Its row of metrics.json: as the others, over the test classes that it has not seen; `champion` says what it is."""
    row = {key: value for key, value in champion.row(champion.evaluation).items() if key != "counts"}
    against = (
        differences_of(champion.evaluation, base, bootstrap)
        if champion.asked.all()
        else differences_over(champion.evaluation, base, champion.asked, bootstrap)
    )
    apart = differences_without_siblings(champion.evaluation, base, bootstrap, champion.asked)
    return row | {
        "confidence": row["confidence"] | {"against_base": as_json(against)},
        "without_siblings": row["without_siblings"] | {"against_base": as_json(apart)},
        "champion": {"recipe": champion.recipe, "classes": champion.classes, "seen": champion.seen},
    }


def compare_pairs(pairs: Sequence[Sequence[str]], evaluations: Mapping[str, Evaluation], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """The differences of the first recipe of each pair to the second, by measure: on all test classes and on those without siblings."""
    return [
        {
            "recipe": recipe,
            "against": against,
            "differences": as_json(differences_of(evaluations[recipe], evaluations[against], bootstrap)),
            "without_siblings": as_json(differences_without_siblings(evaluations[recipe], evaluations[against], bootstrap)),
        }
        for recipe, against in pairs
    ]


def differences_of(one: Evaluation, other: Evaluation, bootstrap: Bootstrap) -> dict[str, PairedDifference]:
    """By measure; paired over the same queries where their values are kept."""
    values, reference = (comparison.query_values(each.per_query, each.per_class) for each in (one, other))
    families = comparison.query_families(other.per_query, other.per_class)
    paired = comparison.paired_differences(values, reference, families, bootstrap)
    return comparison.all_differences(one.metrics, other.metrics, paired)


def differences_without_siblings(
    one: Evaluation, other: Evaluation, bootstrap: Bootstrap, asked: np.ndarray | None = None
) -> dict[str, PairedDifference]:
    """As `differences_over`, of the test classes that look like nothing that was trained on; of these, the queries `asked` or all."""
    apart = ~comparison.query_siblings(other.per_query, other.per_class)
    return differences_over(one, other, apart if asked is None else apart & asked, bootstrap)


def differences_over(one: Evaluation, other: Evaluation, asked: np.ndarray, bootstrap: Bootstrap) -> dict[str, PairedDifference]:
    """By measure, paired, over the queries `asked` (bool [N + C]); {} where there are none."""
    values, reference = (comparison.query_values(each.per_query, each.per_class) for each in (one, other))
    families = comparison.query_families(other.per_query, other.per_class)
    return comparison.paired_differences(values[asked], reference[asked], families[asked], bootstrap)


def as_json(differences: Mapping[str, PairedDifference]) -> dict[str, Any]:
    return {key: comparison.difference_json(difference) for key, difference in differences.items()}


def compare_groups(base: Evaluation, judged: Evaluation, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """GROUPED by group of images; empty where no image has a group."""
    groups = np.array([group or "" for group in base.per_query["group"].to_pylist()])
    classes, families = (np.array(base.per_query[name].to_pylist()) for name in ("label", "family"))
    column = PAIRED.index(GROUPED)
    after, before = (comparison.query_values(each.per_query, each.per_class)[: len(groups), column] for each in (judged, base))
    return comparison.group_differences(after, before, groups, classes, families, bootstrap)
