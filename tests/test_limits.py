"""What a collection of pictures cannot show."""

from assets.limits import limits, sides


def said(classes, *, captions=True):
    """Of pictures of `classes`: (label, family, split, how many)."""
    rows = [(label, family, split) for label, family, split, count in classes for _ in range(count)]
    labels, families, splits = (list(column) for column in zip(*rows, strict=True))
    return list(limits(sides(splits, labels, families, captions=captions), level=0.95))


def enough(family=lambda number: f"t{number}"):
    return [
        *((f"a{number}", f"a{number}", "train", 3) for number in range(20)),
        *((f"v{number}", f"v{number}", "validation", 2) for number in range(10)),
        *((f"t{number}", family(number), "test", 2) for number in range(20)),
        (None, None, "library", 1),
    ]


def test_enough_of_everything_is_no_limit():
    assert said(enough()) == []


def test_six_classes_of_two_families_are_two_draws_of_an_interval():
    (found,) = said(enough(family=lambda number: f"t{number % 2}"))
    assert found.startswith("differences between recipes: 2 test families") and "fewer than 6" in found


def test_what_is_missing_is_said():
    assert "the pictures have none" in said(enough(), captions=False)[0]
    assert "of these 1 validate" in said([row for row in enough() if row[0] not in {f"v{n}" for n in range(1, 10)}])[0]
    fewer = [row for row in enough() if row[2] != "test" or int(row[0][1:]) < 6]
    assert said(fewer) == ["text→image search in fine steps: 6 class names ask, so each is 17 points of text→image R@5"]
    assert "1 test classes are trained on too" in said([*enough(), ("t0", "t0", "train", 1)])[0]
    assert any("one class to train on" in each for each in said([row for row in enough() if row[2] != "train" or row[0] == "a0"]))
