"""The columns of a picture table. Reading and writing one is table.py's."""

from __future__ import annotations

import pyarrow as pa

SPLITS = ("train", "validation", "test", "library")
GIVEN_SPLITS = SPLITS[:3]  # what a source may say

# label: the class key, null for library images; class_name: what a person calls it; captions: what people wrote about the picture.
# family: what keeps classes that show nearly the same together. A source may leave it out; the curated table has it for every label,
# the label itself where the source gives none. given_split: the split that the source gives, null where the project chooses.
IMAGES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),  # an encoded picture file
        pa.field("label", pa.string()),
        pa.field("class_name", pa.string(), nullable=False),  # "" where there is no label
        pa.field("group", pa.string()),
        pa.field("family", pa.string()),
        pa.field("given_split", pa.string()),  # one of GIVEN_SPLITS
        pa.field("captions", pa.list_(pa.string()), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("license", pa.string(), nullable=False),
        pa.field("attribution", pa.string(), nullable=False),
    ]
)
# Rows are ordered by (split, id), in the order of SPLITS, so that a reader of one split touches few row groups.
CURATED_SCHEMA = pa.schema(
    [
        *IMAGES_SCHEMA,
        pa.field("split", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),  # of the source's bytes
    ]
)
