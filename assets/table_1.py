"""The columns of the paper's Table 1, and what measures each. Measuring is evaluation's, showing is the report's, with the paper's rows.

Source: Schall, Barthel, Hezel, Jung, arXiv 2409.01936, Table 1.
"""

from __future__ import annotations

from typing import NamedTuple


class Column(NamedTuple):
    """`benchmark` and `measure` are names of data/evaluation/<recipe>/benchmarks.json; `family` and `key` name the column in it."""

    family: str
    key: str
    name: str  # for people
    benchmark: str
    measure: str


COLUMNS = (
    Column("image_to_image", "gpr1200", "GPR1200", "gpr1200", "map_with_query"),
    Column("image_to_image", "instre", "INSTRE", "instre", "map_with_query"),
    Column("image_to_image", "cub200", "CUB200", "cub200", "recall_at_1"),
    Column("image_to_image", "roxford", "ROxford", "roxford5k", "map_medium_uncropped"),  # as the authors' code measures it
    Column("knn", "imagenet_val", "IN-val", "imagenet_val", "knn"),
    Column("knn", "imagenet_sketch", "IN-Sketch", "imagenet_sketch", "knn"),
    Column("knn", "imagenet_a", "IN-A", "imagenet_a", "knn"),
    Column("knn", "fgvc_aircraft", "Aircraft", "fgvc_aircraft", "knn"),
    Column("zero_shot", "imagenet_val", "IN-val", "imagenet_val", "zero_shot"),
    Column("zero_shot", "imagenet_sketch", "IN-Sketch", "imagenet_sketch", "zero_shot"),
    Column("zero_shot", "imagenet_a", "IN-A", "imagenet_a", "zero_shot"),
    Column("zero_shot", "objectnet", "ObjectNet", "objectnet", "zero_shot"),
    Column("text_to_image", "flickr30k", "Flickr30k", "flickr30k", "text_to_image_recall_at_5"),
    Column("text_to_image", "coco", "COCO", "coco", "text_to_image_recall_at_5"),
)
