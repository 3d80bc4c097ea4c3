"""ImageNet, its variants and ObjectNet: zero-shot among the right classes, k-NN against the training images, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from assets.errors import UserError
from assets.evaluation.benchmarks import imagenet

TENCH, GOLDFISH = 0, 1


def train_of(replica, tools):
    data = imagenet.read_imagenet_train(replica("imagenet_train"))
    return lambda: (tools({}).encoder.images(data.pictures), data.classes)


# Tench at 0° and 10°, goldfish at 30° and 90°.
# Zero-shot, tench named at 0° and goldfish at 80°: 30° is taken for a tench, 3 of 4 are right.
# Nearest training image (tench 0°, 95°, goldfish 8°): 0° right, 10° takes goldfish, 30° right, 90° takes tench: 2 of 4.
# Nearest other image of the set: 0° and 10° find each other, 30° finds 10°, 90° finds 30°: 3 of 4.
@pytest.mark.parametrize(
    ("name", "read"), [("imagenet_val", imagenet.read_imagenet_val), ("imagenet_sketch", imagenet.read_imagenet_sketch)]
)
def test_values_by_hand(replica, tools, prompted, name, read):
    data = read(replica(name))
    assert data.classes.tolist() == [TENCH, TENCH, GOLDFISH, GOLDFISH]
    of_model = tools(prompted({"tench": 0, "goldfish": 80}))
    assert imagenet.measure_imagenet(data, of_model) == {"zero_shot": 75, "knn_leave_one_out": 75}
    with_train = of_model._replace(imagenet_train=train_of(replica, tools))
    assert imagenet.measure_imagenet(data, with_train) == {"zero_shot": 75, "knn": 50, "knn_leave_one_out": 75}


def test_images_in_folders_val_and_train_are_found_too(replica):
    root = replica("imagenet_val")
    (root / "val").mkdir()
    for folder in root.glob("n*"):
        folder.rename(root / "val" / folder.name)
    assert len(imagenet.read_imagenet_val(root).pictures) == 4


@pytest.mark.parametrize(
    ("name", "read", "names", "outside"),
    [
        # the two pictures are at 0° and 90°; without the mask the first would be taken for a tench, which -A does not have
        ("imagenet_a", imagenet.read_imagenet_a, {"stingray": 20, "goldfinch": 80}, {"tench": 0}),
        # at 60° and 130°; without the mask the first would be taken for a tench, which -R does not have either
        ("imagenet_r", imagenet.read_imagenet_r, {"goldfish": 50, "great white shark": 140}, {"tench": 62}),
    ],
)
def test_two_hundred_classes_are_chosen_among(replica, tools, prompted, name, read, names, outside):
    data = read(replica(name))
    assert len(data.candidates) == 200
    of_model = tools(prompted(names | outside))
    assert imagenet.measure_imagenet(data, of_model)["zero_shot"] == 100
    among_all = imagenet.measure_imagenet(data._replace(candidates=np.arange(1000)), of_model)
    assert among_all["zero_shot"] == 50


def test_v2_folders_are_class_numbers(replica, tools, prompted):
    data = imagenet.read_imagenet_v2(replica("imagenet_v2"))
    assert data.pictures.names == ["6/a.jpeg", "11/b.jpeg"]
    assert data.classes.tolist() == [6, 11]
    of_model = tools(prompted({"stingray": 20, "goldfinch": 80, "tench": 0}))
    # all 1000 are chosen among: 0° is taken for a tench; alone, the two find each other, and are wrong
    assert imagenet.measure_imagenet(data, of_model) == {"zero_shot": 50, "knn_leave_one_out": 0}


def test_objectnet_without_its_border_among_the_shared_classes(replica, tools, prompted):
    data = imagenet.read_objectnet(replica("objectnet"))
    assert data.names == ["alarm clock", "bench"]
    # 0° and 90° are right, the clock at 60° is taken for a bench; with the red border in, 0° would be seen elsewhere
    found = imagenet.measure_objectnet(data, tools(prompted({"alarm clock": 0, "bench": 90, "cd/dvd case": 60})))
    assert found == {"zero_shot": round(200 / 3, 4)}
    np.testing.assert_allclose(tools({}).encoder.images(data.pictures)[0], [1, 0], atol=1e-12)


def test_the_lists_are_in_open_clip_s_order():
    from open_clip import IMAGENET_CLASSNAMES

    known = imagenet.wnids("imagenet")
    assert (len(known), known) == (1000, sorted(known))
    name_of = dict(zip(known, IMAGENET_CLASSNAMES, strict=True))
    assert [name_of[wnid] for wnid in ("n01440764", "n01498041", "n02123045", "n15075141")] == [
        "tench",
        "stingray",
        "tabby cat",
        "toilet paper",
    ]
    for subset in ("imagenet_a", "imagenet_r"):
        assert len(imagenet.wnids(subset)) == 200
        assert set(imagenet.wnids(subset)) < set(known)
    assert imagenet.wnids("imagenet_a") != imagenet.wnids("imagenet_r")


def test_a_prompt_ensemble_is_the_normalised_mean_of_eighty(tools):
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    texts = [template("tench") for template in OPENAI_IMAGENET_TEMPLATES]
    angles = dict(zip(texts, [0] * 40 + [90] * 40, strict=True))
    found = imagenet.class_embeddings(["tench"], tools(angles).encoder)
    np.testing.assert_allclose(found, [[np.sqrt(0.5), np.sqrt(0.5)]], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "read", "gone", "told"),
    [
        ("imagenet_val", imagenet.read_imagenet_val, "n*", "n01440764"),
        ("imagenet_train", imagenet.read_imagenet_train, "n*", "n01440764"),
        ("imagenet_v2", imagenet.read_imagenet_v2, "*", "imagenetv2-matched-frequency-format-val"),
        ("imagenet_v2", imagenet.read_imagenet_v2, "*/*", "imagenetv2-matched-frequency-format-val/0"),
        ("imagenet_sketch", imagenet.read_imagenet_sketch, "sketch/*", "sketch/n01440764"),
        ("imagenet_a", imagenet.read_imagenet_a, "imagenet-a/n*", "imagenet-a/n01498041"),
        ("imagenet_r", imagenet.read_imagenet_r, "imagenet-r/n*", "imagenet-r/n01443537"),
        ("objectnet", imagenet.read_objectnet, "objectnet-1.0/mappings/f*", "objectnet-1.0/mappings/folder_to_objectnet_label.json"),
        ("objectnet", imagenet.read_objectnet, "objectnet-1.0/mappings/o*", "objectnet-1.0/mappings/objectnet_to_imagenet_1k.json"),
        ("objectnet", imagenet.read_objectnet, "objectnet-1.0/images/bench", "objectnet-1.0/images/bench"),
    ],
)
def test_the_first_missing_file_is_named(replica, tmp_path, name, read, gone, told):
    root = replica(name)
    (tmp_path / "elsewhere").mkdir()
    for number, path in enumerate(sorted(root.glob(gone))):
        path.rename(tmp_path / "elsewhere" / str(number))
    with pytest.raises(UserError) as raised:
        read(root)
    assert str(raised.value) == f"{root / told} is missing."


def test_classes_that_a_set_does_not_have(replica):
    root = replica("imagenet_a")
    (root / "imagenet-a/n01440764").mkdir()
    with pytest.raises(UserError, match=r"imagenet-a/n01440764 is not one of the set's 200 classes"):
        imagenet.read_imagenet_a(root)
    root = replica("imagenet_val")
    (root / "n15075141").mkdir()
    with pytest.raises(UserError, match="n15075141 holds no picture"):
        imagenet.read_imagenet_val(root)


def test_mappings_that_are_others(replica):
    root = replica("objectnet")
    path = root / "objectnet-1.0/mappings/objectnet_to_imagenet_1k.json"
    path.write_text('{"Bench": "park bench", "Stapler": "stapler"}')
    with pytest.raises(UserError, match="has no folder for 'Stapler'"):
        imagenet.read_objectnet(root)
    path.write_text("[")
    with pytest.raises(UserError, match=r"objectnet_to_imagenet_1k\.json is not JSON"):
        imagenet.read_objectnet(root)
