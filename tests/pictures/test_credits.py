"""Who is credited for pictures that are shown, and which licence a grid of them is passed on under."""

from assets.pictures.credits import Credit, credit_line, credits_of, share_alike

NOTO = Credit("noto", "Apache-2.0", "Noto by Google, https://github.com/googlefonts/noto-emoji")
OPENMOJI = Credit("openmoji", "CC-BY-SA-4.0", "OpenMoji by OpenMoji, https://github.com/hfg-gmuend/openmoji")
MINE = Credit("image_folder", "unknown", "unknown")


def row(credit: Credit) -> dict[str, str]:
    return {"source": credit.source, "license": credit.license, "attribution": credit.attribution}


def test_each_credit_once_and_sorted():
    assert credits_of([row(OPENMOJI), row(NOTO), row(OPENMOJI), row(MINE)]) == [MINE, NOTO, OPENMOJI]
    assert credits_of([]) == []
    by_another = Credit(NOTO.source, NOTO.license, "somebody else")  # one source can name several people
    assert credits_of([row(NOTO), row(by_another)]) == [NOTO, by_another]


def test_a_credit_in_words():
    assert NOTO.short == "noto (Apache-2.0)"
    assert NOTO.line == "Noto by Google (Apache-2.0)"  # no address: nobody can follow it in a picture file
    assert Credit("s", "CC0-1.0", "Ann, https://a.example, and Bob").line == "Ann, and Bob (CC0-1.0)"


def test_a_grid_carries_the_licence_of_a_picture_that_asks_for_it():
    assert share_alike([NOTO, MINE]) is None
    assert share_alike([NOTO, OPENMOJI]) == "CC-BY-SA-4.0"
    assert credit_line([NOTO]) == "Pictures: Noto by Google (Apache-2.0)."
    assert credit_line([NOTO, OPENMOJI]) == (
        "Pictures: Noto by Google (Apache-2.0) · OpenMoji by OpenMoji (CC-BY-SA-4.0). This grid: CC-BY-SA-4.0, as its sources ask."
    )
