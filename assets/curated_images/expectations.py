"""What must hold of the curated images, as a Great Expectations suite over everything but the pixels.

It changes nothing: the steps before it mend.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

from assets.pictures.schema import CURATED_SCHEMA, SPLITS

NEVER_NULL = ("id", "class_name", "captions", "source", "license", "attribution", "split", "width", "height", "sha256")
EXAMPLES = 5


def validate(rows: Sequence[dict[str, Any]], min_side: int) -> dict[str, Any]:
    """Check rows of CURATED_SCHEMA (without their images) and return the outcome, the same for the same rows.

    {"success", "statistics": {"evaluated", "successful", "unsuccessful"}, "results": [{"expectation", "kwargs", "meaning", "success",
    "unexpected_count", "unexpected_ids": the first few}]}
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's, about itself
        found = _run(rows, min_side)
    results = [_summary(each) for each in found.results]
    results.sort(key=lambda each: (each["expectation"], str(each["kwargs"])))
    passed = sum(each["success"] for each in results)
    return {
        "success": bool(found.success),
        "statistics": {"evaluated": len(results), "successful": passed, "unsuccessful": len(results) - passed},
        "results": results,
    }


def _run(rows: Sequence[dict[str, Any]], min_side: int) -> Any:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the library is imported
    quiet = logging.getLogger("great_expectations")  # its modules set levels of their own: keep what they say from going further
    quiet.propagate = False
    quiet.addHandler(logging.NullHandler())
    import great_expectations as gx
    import pandas as pd
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("curated_images").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": pd.DataFrame(checked_columns(rows))})
    suite = gx.ExpectationSuite("curated_images", expectations=_expectations(gx.expectations, min_side))
    return batch.validate(suite, result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["id"]})


def failures(result: dict[str, Any]) -> list[str]:
    """A sentence for each expectation that does not hold, with the ids of the first rows concerned."""
    return [
        f"{each['meaning']}: not so for {each['unexpected_count']} image(s), such as {', '.join(each['unexpected_ids'])}"
        if each["unexpected_ids"]
        else f"{each['meaning']}: not so"
        for each in result["results"]
        if not each["success"]
    ]


def checked_columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """The rows as columns, with those computed columns that the expectations about several rows or values need."""
    columns = {name: [row[name] for row in rows] for name in CURATED_SCHEMA.names if name != "image"}
    sides: dict[str | None, set[bool]] = {}
    for family, given, split in zip(columns["family"], columns["given_split"], columns["split"], strict=True):
        if given is None:
            sides.setdefault(family, set()).add(split == "test")
    of_class = Counter((row["label"], row["split"]) for row in rows)
    labelled = [label is not None for label in columns["label"]]
    columns["labelled_or_library"] = [
        has_label != (split == "library") for has_label, split in zip(labelled, columns["split"], strict=True)
    ]
    columns["family_named"] = [has_label == bool(family) for has_label, family in zip(labelled, columns["family"], strict=True)]
    columns["family_on_one_side"] = [
        not has_label or given is not None or len(sides[family]) == 1
        for has_label, family, given in zip(labelled, columns["family"], columns["given_split"], strict=True)
    ]
    columns["given_split_kept"] = [
        not has_label or given in (None, split) or (given, split) == ("train", "validation")
        for has_label, given, split in zip(labelled, columns["given_split"], columns["split"], strict=True)
    ]
    columns["class_named"] = [not has_label or bool(name.strip()) for has_label, name in zip(labelled, columns["class_name"], strict=True)]
    columns["images_of_test_class"] = [
        of_class[label, split] if split == "test" and given is None else None
        for label, split, given in zip(columns["label"], columns["split"], columns["given_split"], strict=True)
    ]
    columns["shortest_caption"] = [min((len((text or "").strip()) for text in texts), default=None) for texts in columns["captions"]]
    return columns


def _expectations(expect: Any, min_side: int) -> list[Any]:
    def meaning(sentence: str) -> dict[str, str]:
        return {"meaning": sentence}

    return [
        expect.ExpectColumnValuesToBeUnique(column="id", meta=meaning("ids are unique")),
        *(expect.ExpectColumnValuesToNotBeNull(column=name, meta=meaning(f"{name} is never null")) for name in NEVER_NULL),
        expect.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS), meta=meaning("split is one of the four")),
        expect.ExpectColumnDistinctValuesToContainSet(
            column="split", value_set=["train", "test"], meta=meaning("there are training and test images")
        ),
        *(
            expect.ExpectColumnValuesToBeBetween(column=side, min_value=min_side, meta=meaning(f"{side} is at least min_side"))
            for side in ("width", "height")
        ),
        expect.ExpectColumnValuesToMatchRegex(
            column="sha256", regex="^[0-9a-f]{64}$", meta=meaning("sha256 is 64 lower-case hexadecimal digits")
        ),
        expect.ExpectColumnValuesToBeInSet(
            column="labelled_or_library", value_set=[True], meta=meaning("an image has a label, or is in the library, never both")
        ),
        expect.ExpectColumnValuesToBeInSet(
            column="family_named", value_set=[True], meta=meaning("a labelled image has a family, a library image has none")
        ),
        expect.ExpectColumnValuesToBeInSet(
            column="family_on_one_side",
            value_set=[True],
            meta=meaning("no family is in test and in train or validation, where the source gives no split"),
        ),
        expect.ExpectColumnValuesToBeInSet(
            column="given_split_kept",
            value_set=[True],
            meta=meaning("a split that the source gives is kept, but for training pictures held out to validate"),
        ),
        expect.ExpectColumnValuesToBeInSet(column="class_named", value_set=[True], meta=meaning("a labelled image has a class name")),
        expect.ExpectColumnValuesToBeBetween(
            column="images_of_test_class", min_value=2, meta=meaning("a test class has two images or more, where the source gives no split")
        ),
        expect.ExpectColumnValuesToBeBetween(column="shortest_caption", min_value=1, meta=meaning("captions are not empty")),
    ]


def _summary(result: Any) -> dict[str, Any]:
    config = result.expectation_config
    return {
        "expectation": config.type,
        "kwargs": {key: value for key, value in sorted(config.kwargs.items()) if key != "batch_id"},
        "meaning": config.meta["meaning"],
        "success": bool(result.success),
        "unexpected_count": int(result.result.get("unexpected_count") or 0),
        "unexpected_ids": [str(row["id"]) for row in (result.result.get("unexpected_index_list") or [])[:EXAMPLES]],
    }
