"""A tiny replica of every benchmark in its official layout, and a model that sees in a picture one angle in degrees, its grey level.

So every picture and text is a direction in the plane, and what a protocol must find can be worked out by hand.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assets.evaluation.benchmarks.pictures import Pictures
from assets.evaluation.benchmarks.tools import Tools

# Three classes whose ranks tests/evaluation/test_protocol.py works out.
THREE_CLASSES = ((0, 20), (90, 50, 33), (170, 180))
ELSEWHERE = 250  # degrees: a text that no picture is near to


def draw(path: Path, degrees: int, size: tuple[int, int] = (16, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, degrees).convert("RGB").save(path, "PNG" if path.suffix == ".png" else "JPEG", quality=100)


def at(degrees: Sequence[float]) -> np.ndarray:
    angles = np.deg2rad(np.array(degrees, np.float64))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


class Angles:
    """The model: `texts` gives the angle of each text that matters, in degrees."""

    def __init__(self, texts: dict[str, float]) -> None:
        self.known = texts
        self.encoded: list[int] = []  # how many texts at each call

    def images(self, pictures: Pictures) -> np.ndarray:
        return at([round(np.asarray(pictures.open(item), np.float64).mean()) for item in pictures.items()])

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        self.encoded.append(len(texts))
        return at([self.known.get(text, ELSEWHERE) for text in texts])


def tools_of(texts: dict[str, float], **changed: object) -> Tools:
    """k-NN is the nearest neighbour; `texts` the angle of each text that matters."""
    from assets.evaluation.benchmarks.imagenet import imagenet_class_embeddings

    encoder = Angles(texts)
    tools = Tools(encoder, 1, 0.1, imagenet_classes=lambda: imagenet_class_embeddings(encoder), imagenet_train=None)
    return tools._replace(**changed)


def gpr1200(root: Path) -> None:
    # category 10 comes after 2, as numbers do
    for category, angles in zip((1, 2, 10), THREE_CLASSES, strict=True):
        for angle in angles:
            draw(root / f"images/{category}_landmark_{angle}.jpg", angle)


def instre(root: Path) -> None:
    # the same folder name in two subsets is two classes
    for folder, angles in zip(("INSTRE-S1/01a_box", "INSTRE-S2/01a_box", "INSTRE-M/01"), THREE_CLASSES, strict=True):
        for angle in angles:
            draw(root / folder / f"{angle}.jpg", angle)
            (root / folder / f"{angle}.txt").write_text("1 2 3 4\n")  # its boxes


def cub200(root: Path) -> None:
    root /= "CUB_200_2011"
    # a training class comes first, one picture of it between those of the test classes
    rows = [("001.Albatross", 21)]
    rows += [(folder, angle) for folder, angles in zip(("101.A", "102.B", "200.C"), THREE_CLASSES, strict=True) for angle in angles]
    for folder, angle in rows:
        draw(root / "images" / folder / f"{angle}.jpg", angle)
    numbered = list(enumerate(rows, start=1))
    (root / "images.txt").write_text("".join(f"{number} {folder}/{angle}.jpg\n" for number, (folder, angle) in numbered))
    (root / "image_class_labels.txt").write_text("".join(f"{number} {int(folder[:3])}\n" for number, (folder, _) in numbered))


def sop(root: Path) -> None:
    root /= "Stanford_Online_Products"
    rows = [(product, f"chair_final/{angle}.JPG", angle) for product, angles in enumerate(THREE_CLASSES, 11319) for angle in angles]
    for _, name, angle in rows:
        draw(root / name, angle)
    lines = [f"{59551 + row} {product} 1 {name}" for row, (product, name, _) in enumerate(rows)]
    (root / "Ebay_test.txt").write_text("\n".join(["image_id class_id super_class_id path", *lines]) + "\n")


def revisited(root: Path) -> None:
    names = ["all_souls_1", "all_souls_2", "all_souls_3", "bodleian_1", "bodleian_2"]
    for name, angle in zip(names, (10, 20, 30, 40, 50), strict=True):
        draw(root / f"jpg/{name}.jpg", angle)
    for name, angle in (("query_1", 0), ("query_2", 50)):  # what is to be found is within the box
        picture = Image.new("RGB", (64, 48), (179, 179, 179))
        picture.paste((angle, angle, angle), (16, 8, 48, 40))
        picture.save(root / f"jpg/{name}.jpg", quality=100, subsampling=0)
    gnd = [
        {"bbx": [16.1, 8.2, 47.9, 39.8], "easy": np.array([0, 4]), "hard": np.array([2]), "junk": np.array([1])},
        {"bbx": [16, 8, 48, 40], "easy": [3], "hard": [], "junk": [4]},
    ]
    with (root / f"gnd_{root.name}.pkl").open("wb") as stream:
        pickle.dump({"gnd": gnd, "imlist": names, "qimlist": ["query_1", "query_2"]}, stream, protocol=3)


def tench_and_goldfish(root: Path) -> None:
    for wnid, angles in (("n01440764", (0, 10)), ("n01443537", (30, 90))):
        for angle in angles:
            draw(root / wnid / f"ILSVRC2012_val_{angle:08}.JPEG", angle)


def imagenet_train(root: Path) -> None:
    for wnid, angles in (("n01440764", (0, 95)), ("n01443537", (8,))):
        for angle in angles:
            draw(root / wnid / f"{wnid}_{angle}.JPEG", angle)


def imagenet_v2(root: Path) -> None:
    # stingray is class 6, goldfinch 11: folders in the order of the numbers, not of the letters
    draw(root / "imagenetv2-matched-frequency-format-val/6/a.jpeg", 0)
    draw(root / "imagenetv2-matched-frequency-format-val/11/b.jpeg", 90)


def imagenet_a(root: Path) -> None:
    draw(root / "imagenet-a/n01498041/0.00_stingray.jpg", 0)
    draw(root / "imagenet-a/n01531178/0.00_goldfinch.jpg", 90)
    (root / "imagenet-a/README.txt").write_text("ImageNet-A\n")


def imagenet_r(root: Path) -> None:
    draw(root / "imagenet-r/n01443537/art_0.jpg", 60)
    draw(root / "imagenet-r/n01484850/art_0.jpg", 130)


def objectnet(root: Path) -> None:
    root /= "objectnet-1.0"
    for folder, angle in (("alarm_clock", 0), ("alarm_clock", 60), ("bench", 90)):
        path = root / "images" / folder / f"{angle}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (20, 14), (255, 0, 0))  # the border
        picture.paste((angle, angle, angle), (2, 2, 18, 12))
        picture.save(path)
    (root / "images/cd_case").mkdir()
    (root / "images/cd_case/0.png").write_bytes(b"of no class of ImageNet: never opened")
    (root / "mappings").mkdir()
    labels = {"cd_case": "CD/DVD case", "alarm_clock": "Alarm clock", "bench": "Bench"}
    (root / "mappings/folder_to_objectnet_label.json").write_text(json.dumps(labels))
    shared = {"Alarm clock": "analog clock; digital clock", "Bench": "park bench"}
    (root / "mappings/objectnet_to_imagenet_1k.json").write_text(json.dumps(shared))


def fgvc_aircraft(root: Path) -> None:
    root /= "fgvc-aircraft-2013b/data"
    parts = {"train": {1: ("707-320", 0), 2: ("BAE 146-200", 90)}, "test": {3: ("707-320", 10), 4: ("707-320", 50), 5: ("BAE 146-200", 80)}}
    for part, rows in parts.items():
        for image, (_, angle) in rows.items():
            draw(root / f"images/{image:07}.jpg", angle)
        lines = [f"{image:07} {variant}\n" for image, (variant, _) in rows.items()]
        (root / f"images_variant_{part}.txt").write_text("".join(lines))


def karpathy(root: Path, split: str, folder: str) -> None:
    captions = {0: ["0°", "100°"], 30: ["30°"], 60: ["60°"], 90: ["90°"], 120: ["120°"], 150: ["150°"], 179: ["45°"]}
    images = [{"filename": "gone.jpg", "split": "train", "sentences": [{"raw": "a picture that is not here"}]}]
    for angle, own in captions.items():
        draw(root / folder / f"{angle}.jpg", angle)
        images.append({"filename": f"{angle}.jpg", "split": "test", "sentences": [{"raw": raw} for raw in own]})
    (root / split).write_text(json.dumps({"images": images, "dataset": split}))


REPLICAS: dict[str, Callable[[Path], None]] = {
    "gpr1200": gpr1200,
    "instre": instre,
    "cub200": cub200,
    "sop": sop,
    "roxford5k": revisited,
    "rparis6k": revisited,
    "imagenet_val": tench_and_goldfish,
    "imagenet_v2": imagenet_v2,
    "imagenet_sketch": lambda root: tench_and_goldfish(root / "sketch"),
    "imagenet_a": imagenet_a,
    "imagenet_r": imagenet_r,
    "objectnet": objectnet,
    "fgvc_aircraft": fgvc_aircraft,
    "flickr30k": lambda root: karpathy(root, "dataset_flickr30k.json", "flickr30k-images"),
    "coco": lambda root: karpathy(root, "dataset_coco.json", "val2014"),
    "imagenet_train": imagenet_train,
}


@pytest.fixture
def replica(tmp_path: Path) -> Callable[[str], Path]:
    """Make the replica of a name in a folder of that name, and give the folder."""

    def make(name: str) -> Path:
        root = tmp_path / "benchmarks" / name
        root.mkdir(parents=True)
        REPLICAS[name](root)
        return root

    return make


@pytest.fixture
def tools() -> Callable[..., Tools]:
    return tools_of


@pytest.fixture
def prompted() -> Callable[[dict[str, float]], dict[str, float]]:
    """Angles of class names to angles of all their prompts."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return lambda names: {template(name): angle for name, angle in names.items() for template in OPENAI_IMAGENET_TEMPLATES}
