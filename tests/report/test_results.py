"""The table of the recipes."""

from __future__ import annotations

from assets.measures import SHOWN
from assets.report.results import results_view
from tests.commands.rows import METRICS, ROWS

ABOUT = {row["recipe"]: f"what {row['recipe']} is" for row in ROWS}


def test_a_row_has_its_words_a_cell_per_measure_and_a_mark_against_base():
    view = results_view(METRICS, "mcip", ABOUT)
    assert view["measures"] == SHOWN
    assert [(row["recipe"], row["meaning"], row["published"]) for row in view["table"]] == [
        (name, about, name == "mcip") for name, about in ABOUT.items()
    ]
    base, gpr, mcip, mcip_rea = (row["cells"][0] for row in view["table"])
    assert base["difference"] is None
    assert (gpr["difference"]["mark"], gpr["difference"]["points"]) == ("▲", "+11.7")
    assert (mcip["difference"]["mark"], mcip_rea["difference"]["mark"]) == ("≈", "▼")


def test_the_best_of_a_column_is_what_a_reader_sees_as_best():
    table = results_view(METRICS, "mcip", ABOUT)["table"]
    assert [row["cells"][0]["best"] for row in table] == [False, True, False, False]
    captions = [measure.key for measure in SHOWN].index("text_to_image.caption_recall_at_5")
    assert {(row["cells"][captions]["value"], row["cells"][captions]["best"]) for row in table} == {("–", False)}  # not measured


def test_a_pair_shows_the_first_one_s_difference_to_the_second():
    (pair,) = results_view(METRICS, "mcip", ABOUT)["pairs"]
    assert (pair["recipe"], pair["against"]) == ("mcip_rea", "mcip")
    cells = dict(zip([measure.key for measure in SHOWN], pair["cells"], strict=True))
    assert (cells["average"]["mark"], cells["average"]["points"], cells["knn.accuracy"]["mark"]) == ("▼", "−10.0", "≈")
    assert cells["text_to_image.caption_recall_at_5"] is None  # not measured
