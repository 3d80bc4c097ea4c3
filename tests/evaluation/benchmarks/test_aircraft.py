"""FGVC-Aircraft: two training images at 0° and 90°, three test images."""

from __future__ import annotations

import pytest

from assets.errors import UserError
from assets.evaluation.benchmarks.aircraft import measure_fgvc_aircraft, read_fgvc_aircraft


def test_values_by_hand(replica, tools):
    data = read_fgvc_aircraft(replica("fgvc_aircraft"))
    assert data.variants.tolist() == ["707-320", "707-320", "BAE 146-200"]
    # 10° and 80° find their own, 50° is nearer to 90° than to 0°; among themselves, 10° and 50° would find each other
    assert measure_fgvc_aircraft(data, tools({})) == {"knn": round(200 / 3, 4)}


@pytest.mark.parametrize("gone", ["images_variant_train.txt", "images_variant_test.txt", "images/0000002.jpg", "images/0000004.jpg"])
def test_the_first_missing_file_is_named(replica, gone):
    root = replica("fgvc_aircraft")
    (root / "fgvc-aircraft-2013b/data" / gone).unlink()
    with pytest.raises(UserError) as raised:
        read_fgvc_aircraft(root)
    assert str(raised.value) == f"{root / 'fgvc-aircraft-2013b/data' / gone} is missing."


def test_a_list_without_variants(replica):
    root = replica("fgvc_aircraft")
    (root / "fgvc-aircraft-2013b/data/images_variant_test.txt").write_text("0000003\n")
    with pytest.raises(UserError, match="must have an image and its variant on each line"):
        read_fgvc_aircraft(root)
