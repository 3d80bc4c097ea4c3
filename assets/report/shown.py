"""Which queries, classes and images the page shows: drawn by seed, or chosen for how they fare, by rules that the page states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from assets import params
from assets.report import changes, embedding_map, examples
from assets.report.cards import CLASS_PICTURES
from assets.report.changes import ClassChange
from assets.report.examples import Query
from assets.report.inputs import Evaluation, TestSplit, read_pictures


@dataclass(frozen=True)
class Shown:
    """The example queries and classes of the page, the images on its map, and the pictures that all of them need, by id."""

    images: list[Query]
    texts: list[Query]
    failed_images: list[Query]
    failed_texts: list[Query]
    gained: list[tuple[ClassChange, list[tuple[str, int]]]]
    lost: list[tuple[ClassChange, list[tuple[str, int]]]]
    on_map: list[int]
    pictures: dict[str, bytes]

    @property
    def rows(self) -> list[int]:
        asked = (row for query in (*self.images, *self.texts, *self.failed_images, *self.failed_texts) for row in query.rows)
        changed = (row for change, _ in (*self.gained, *self.lost) for row in change.rows[:CLASS_PICTURES])
        return sorted({*asked, *changed, *self.on_map})


def choose_examples(
    before_after: Mapping[str, Evaluation],
    published_recipe: str,
    changed: Sequence[ClassChange],
    test: TestSplit,
    settings: params.Report,
) -> Shown:
    """Queries drawn by seed, and those on which the published recipe does worst, answered by base and it; classes; images of the map."""
    published = before_after[published_recipe]
    images = {recipe: each.images for recipe, each in before_after.items()}
    texts = {recipe: each.texts for recipe, each in before_after.items()}
    k = settings.top_k

    average_precision = published.per_query["average_precision"].to_numpy()
    chosen_images = (
        examples.draw_images(test.labels, settings.queries, settings.seed),
        examples.worst_images(average_precision, test.labels, settings.worst_failures),
    )
    chosen_texts = (
        examples.draw_texts(test.class_names, settings.queries, settings.seed),
        examples.worst_texts(published.texts, published.images, test.class_names, test.names, settings.worst_failures),
    )
    drawn_images, worst_images = (examples.ask_images(rows, images, test.labels, test.names, k) for rows in chosen_images)
    drawn_texts, worst_texts = (examples.ask_texts(each, texts, images, test.class_names, test.names, k) for each in chosen_texts)
    gained, lost = (
        [(change, changes.found_instead(change, published.images, test.labels, test.names)) for change in most]
        for most in (changes.most_gained(changed, settings.changed_classes), changes.most_lost(changed, settings.changed_classes))
    )
    on_map = embedding_map.draw_classes(test.labels, settings.map_images, settings.seed)
    shown = Shown(drawn_images, drawn_texts, worst_images, worst_texts, gained, lost, on_map, pictures={})
    return replace(shown, pictures=read_pictures(set(test.ids(shown.rows))))
