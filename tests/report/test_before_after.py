"""Which queries the picture files show."""

from __future__ import annotations

from assets.report.before_after import most_changed
from assets.report.queries import Answer, Hit, Query


def test_most_changed_counts_gains_and_losses_alike():
    def query(name, before, after):
        answers = {recipe: Answer([Hit(0, right, 1.0) for right in found], None) for recipe, found in (("base", before), ("new", after))}
        return Query(None, name, answers)

    same, gained, lost, beyond = (
        query("same", [True, False], [False, True]),
        query("gained", [False, False], [True, False]),
        query("lost", [True, True], [False, False]),
        query("beyond", [True, True, False], [True, True, True]),
    )
    assert [each.name for each in most_changed([same, gained, lost, beyond], 3, k=2)] == ["lost", "gained", "same"]
