"""Pictures of the page."""

from __future__ import annotations

from assets import artifacts
from assets.evaluations import read_test_split
from assets.pictures.table import read_images_of
from assets.report.album import Album


def test_a_picture_says_what_it_is_whether_it_is_right_and_whose_it_is(report):
    test = read_test_split()
    album = Album(test, read_images_of(artifacts.CURATED_IMAGES, set(test.ids([0, 1]))), side=32)
    query, right, wrong = album.picture(0, None), album.picture(0, True), album.picture(1, False)
    assert query["alt"] == "red square, picture by alpha"
    assert (right["alt"], wrong["alt"]) == ("right: red square, picture by alpha", "wrong: red square, picture by beta")
    assert query["title"] == "red square · alpha (CC-BY-SA-4.0)"
    assert query["uri"] == right["uri"] != wrong["uri"]
    assert len(album.made) == 2  # each is encoded once
