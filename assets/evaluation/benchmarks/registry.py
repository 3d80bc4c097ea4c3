"""The table of benchmarks: what each is called, where its makers keep it, how it lies on the disk, who reads and measures it.

Which of their measures are the columns of the paper's Table 1 is in assets/table_1.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from assets.evaluation.benchmarks import aircraft, captions, imagenet, retrieval, revisited
from assets.evaluation.benchmarks.tools import Tools


class Benchmark(NamedTuple):
    """One row. Its pictures lie in <evaluation.benchmarks_root>/<name>/.

    `images`: how many test pictures the complete set has. `read` checks the layout below a folder and lists its pictures, without
    opening them; `measure` gives percent by name.
    """

    name: str
    source: str
    layout: str
    images: int
    read: Callable[[Path], Any]
    measure: Callable[[Any, Tools], dict[str, float]]


BENCHMARKS = (
    Benchmark(
        "gpr1200",
        "GPR1200, Visual Computing Group, HTW Berlin (GitHub: Visual-Computing/GPR1200)",
        "images/<category>_<name>.jpg",
        12_000,
        retrieval.read_gpr1200,
        retrieval.measure_map,
    ),
    Benchmark(
        "instre",
        "INSTRE, Institute of Computing Technology, Chinese Academy of Sciences",
        "INSTRE-S1/<class>/*.jpg, INSTRE-S2/<class>/*.jpg, INSTRE-M/<class>/*.jpg",
        28_543,
        retrieval.read_instre,
        retrieval.measure_map,
    ),
    Benchmark(
        "cub200",
        "Caltech-UCSD Birds-200-2011, Caltech Vision Lab (CUB_200_2011.tgz)",
        "CUB_200_2011/images.txt, image_class_labels.txt and images/<class>/*.jpg",
        5_924,
        retrieval.read_cub200,
        retrieval.measure_cub200,
    ),
    Benchmark(
        "sop",
        "Stanford Online Products, Stanford CVGL (Stanford_Online_Products.zip)",
        "Stanford_Online_Products/Ebay_test.txt and <product>_final/*.JPG",
        60_502,
        retrieval.read_sop,
        retrieval.measure_sop,
    ),
    Benchmark(
        "roxford5k",
        "Revisiting Oxford and Paris, CTU Prague (GitHub: filipradenovic/revisitop), pictures of Oxford 5k (VGG)",
        "gnd_roxford5k.pkl and jpg/*.jpg",
        4_993,
        revisited.read_revisited,
        revisited.measure_revisited,
    ),
    Benchmark(
        "rparis6k",
        "Revisiting Oxford and Paris, CTU Prague (GitHub: filipradenovic/revisitop), pictures of Paris 6k (VGG)",
        "gnd_rparis6k.pkl and jpg/*.jpg",
        6_322,
        revisited.read_revisited,
        revisited.measure_revisited,
    ),
    Benchmark(
        "imagenet_val",
        "ILSVRC2012 validation images, image-net.org (ILSVRC2012_img_val.tar), sorted into folders by wnid",
        "<wnid>/*.JPEG",
        50_000,
        imagenet.read_imagenet_val,
        imagenet.measure_imagenet,
    ),
    Benchmark(
        "imagenet_v2",
        "ImageNet-V2, matched frequency (GitHub: modestyachts/ImageNetV2)",
        "imagenetv2-matched-frequency-format-val/<0…999>/*.jpeg",
        10_000,
        imagenet.read_imagenet_v2,
        imagenet.measure_imagenet,
    ),
    Benchmark(
        "imagenet_sketch",
        "ImageNet-Sketch (GitHub: HaohanWang/ImageNet-Sketch)",
        "sketch/<wnid>/*.JPEG",
        50_889,
        imagenet.read_imagenet_sketch,
        imagenet.measure_imagenet,
    ),
    Benchmark(
        "imagenet_a",
        "ImageNet-A (GitHub: hendrycks/natural-adv-examples)",
        "imagenet-a/<wnid>/*.jpg",
        7_500,
        imagenet.read_imagenet_a,
        imagenet.measure_imagenet,
    ),
    Benchmark(
        "imagenet_r",
        "ImageNet-R (GitHub: hendrycks/imagenet-r)",
        "imagenet-r/<wnid>/*.jpg",
        30_000,
        imagenet.read_imagenet_r,
        imagenet.measure_imagenet,
    ),
    Benchmark(
        "objectnet",
        "ObjectNet 1.0, MIT (objectnet.dev)",
        "objectnet-1.0/images/<class>/*.png and mappings/{folder_to_objectnet_label,objectnet_to_imagenet_1k}.json",
        18_574,
        imagenet.read_objectnet,
        imagenet.measure_objectnet,
    ),
    Benchmark(
        "fgvc_aircraft",
        "FGVC-Aircraft 2013b, Oxford VGG (fgvc-aircraft-2013b.tar.gz)",
        "fgvc-aircraft-2013b/data/images_variant_{train,test}.txt and images/*.jpg",
        3_333,
        aircraft.read_fgvc_aircraft,
        aircraft.measure_fgvc_aircraft,
    ),
    Benchmark(
        "flickr30k",
        "Flickr30k, University of Illinois, with Andrej Karpathy's splits (caption_datasets.zip)",
        "dataset_flickr30k.json and flickr30k-images/*.jpg",
        1_000,
        captions.read_flickr30k,
        captions.measure_captions,
    ),
    Benchmark(
        "coco",
        "MS-COCO 2014, cocodataset.org (val2014.zip), with Andrej Karpathy's splits (caption_datasets.zip)",
        "dataset_coco.json and val2014/*.jpg",
        5_000,
        captions.read_coco,
        captions.measure_captions,
    ),
)

# The gallery of ImageNet's k-NN; nothing is measured on it alone.
IMAGENET_TRAIN = "imagenet_train"
IMAGENET_TRAIN_SOURCE = "ILSVRC2012 training images, image-net.org (ILSVRC2012_img_train.tar and the archives in it)"
IMAGENET_TRAIN_LAYOUT = "<wnid>/*.JPEG"
IMAGENET_TRAIN_IMAGES = 1_281_167

# Of every k-NN here, as in the public code of the paper; with the settings of section evaluation the columns could not be compared.
KNN_K = 21
KNN_TEMPERATURE = 0.1  # weights exp(cosine / temperature)
