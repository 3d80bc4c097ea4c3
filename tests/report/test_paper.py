"""The paper's rows as data: a digit typed wrongly shows in their averages, which the paper prints as well."""

import numpy as np
import pytest

from assets.report.paper import PAPER, PAPER_AVERAGES
from assets.table_1 import COLUMNS


@pytest.mark.parametrize("recipe", PAPER)
def test_the_paper_s_averages_are_the_plain_mean_of_its_columns_but_one(recipe):
    expected = 72.8 if recipe == "gpr" else PAPER_AVERAGES[recipe]  # the paper prints 68.4 there
    assert len(PAPER[recipe]) == len(COLUMNS)
    assert np.mean(PAPER[recipe]) == pytest.approx(expected, abs=0.06)
    assert PAPER_AVERAGES.keys() == PAPER.keys()
