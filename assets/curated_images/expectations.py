"""What must hold of the curated images, as a Great Expectations suite over everything but the pixels.

It changes nothing: the steps before it mend.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from typing import Any

import polars as pl

from assets.pictures.schema import SPLITS

NEVER_NULL = ("id", "class_name", "captions", "source", "license", "attribution", "split", "width", "height", "sha256")
EXAMPLES = 5
CHECKED_AT_ONCE = 50_000  # rows: pandas, which the library reads, holds each value as an object


def validate(frame: pl.DataFrame, min_side: int) -> dict[str, Any]:
    """Check rows of CURATED_SCHEMA (without their images) and return the outcome, the same for the same rows.

    {"success", "statistics": {"evaluated", "successful", "unsuccessful"}, "results": [{"expectation", "kwargs", "meaning", "success",
    "unexpected_count", "unexpected_ids": the first few}]}
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's, about itself
        results = _run(frame, min_side)
    results.sort(key=lambda each: (each["expectation"], str(each["kwargs"])))
    passed = sum(each["success"] for each in results)
    return {
        "success": passed == len(results),
        "statistics": {"evaluated": len(results), "successful": passed, "unsuccessful": len(results) - passed},
        "results": results,
    }


def _run(frame: pl.DataFrame, min_side: int) -> list[dict[str, Any]]:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the library is imported
    quiet = logging.getLogger("great_expectations")  # its modules set levels of their own: keep what they say from going further
    quiet.propagate = False
    quiet.addHandler(logging.NullHandler())
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    batches = context.data_sources.add_pandas("curated_images").add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")

    def found(expectations: list[Any], rows: pl.DataFrame) -> list[dict[str, Any]]:
        suite = gx.ExpectationSuite("curated_images", expectations=expectations)
        batch = batches.get_batch({"dataframe": rows.to_pandas()})
        outcome = batch.validate(suite, result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["id"]})
        return [_summary(each) for each in outcome.results]

    of_table = found(_of_the_table(gx.expectations), frame.unique("split", keep="first", maintain_order=True).select("id", "split"))
    checked = checked_columns(frame)
    pieces = [
        found(_of_rows(gx.expectations, min_side), checked.slice(start, CHECKED_AT_ONCE))
        for start in range(0, max(1, checked.height), CHECKED_AT_ONCE)
    ]
    return of_table + [_joined(each) for each in zip(*pieces, strict=True)]


def _joined(pieces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One expectation's outcome on all pieces of the table."""
    return pieces[0] | {
        "success": all(each["success"] for each in pieces),
        "unexpected_count": sum(each["unexpected_count"] for each in pieces),
        "unexpected_ids": [name for each in pieces for name in each["unexpected_ids"]][:EXAMPLES],
    }


def failures(result: dict[str, Any]) -> list[str]:
    """A sentence for each expectation that does not hold, with the ids of the first rows concerned."""
    return [
        f"{each['meaning']}: not so for {each['unexpected_count']} image(s), such as {', '.join(each['unexpected_ids'])}"
        if each["unexpected_ids"]
        else f"{each['meaning']}: not so"
        for each in result["results"]
        if not each["success"]
    ]


def checked_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """What the expectations look at: the columns, and those computed ones that several rows or values decide."""
    labelled, chosen = pl.col("label").is_not_null(), pl.col("given_split").is_null()
    sides = frame.filter(chosen).group_by("family").agg(pl.col("split").eq("test").n_unique().alias("sides_of_family"))
    text = pl.element().fill_null("").str.strip_chars().str.len_chars()
    return (
        frame.join(sides, on="family", how="left", nulls_equal=True, maintain_order="left")
        .with_columns(
            id_unique=pl.len().over("id") == 1,
            labelled_or_library=labelled != pl.col("split").eq_missing("library"),
            family_named=labelled == pl.col("family").fill_null("").ne(""),
            family_on_one_side=~labelled | ~chosen | pl.col("sides_of_family").eq_missing(1),
            given_split_kept=~labelled
            | chosen
            | pl.col("given_split").eq_missing(pl.col("split"))
            | (pl.col("given_split").eq_missing("train") & pl.col("split").eq_missing("validation")),
            class_named=~labelled | pl.col("class_name").fill_null("").str.strip_chars().ne(""),
            images_of_test_class=pl.when(pl.col("split").eq_missing("test") & chosen).then(pl.len().over("label", "split")),
            shortest_caption=pl.col("captions").list.eval(text).list.min(),
            captions=pl.col("captions").list.len(),  # null where there is no list
        )
        .drop("sides_of_family", "label", "group", "family", "given_split")
    )


def _of_the_table(expect: Any) -> list[Any]:
    return [
        expect.ExpectColumnDistinctValuesToContainSet(
            column="split", value_set=["train", "test"], meta={"meaning": "there are training and test images"}
        )
    ]


def _of_rows(expect: Any, min_side: int) -> list[Any]:
    def meaning(sentence: str) -> dict[str, str]:
        return {"meaning": sentence}

    return [
        expect.ExpectColumnValuesToBeInSet(column="id_unique", value_set=[True], meta=meaning("ids are unique")),
        *(expect.ExpectColumnValuesToNotBeNull(column=name, meta=meaning(f"{name} is never null")) for name in NEVER_NULL),
        expect.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS), meta=meaning("split is one of the four")),
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
