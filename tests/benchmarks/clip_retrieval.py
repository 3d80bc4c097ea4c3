"""python -m tests.benchmarks.clip_retrieval [PICTURES]: embedding for a publish ÷ clip-retrieval's inference; same pictures, model, cores.

clip-retrieval needs numpy < 2 and setuptools < 80, so it gets an environment of its own in .cache/clip_retrieval, made once (it holds torch
too and takes minutes). The model is ViT-B-32 with random weights in both; their vectors are compared. Wanted: 1.5 × its pictures/s. 256
pictures unless told.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image

from assets import artifacts
from assets.clip.encoder import Encoder
from assets.clip.model import CONFIG, save_weights
from assets.params import read_params
from assets.pictures.split import Split
from tests.benchmarks.publishing import spent, write_curated

ENVIRONMENT = Path(".cache") / "clip_retrieval"
PACKAGES = ("numpy<2", "setuptools<80", "clip-retrieval")
MODEL = "ViT-B-32"
THEIRS = """
import json, resource, sys, time
from clip_retrieval.clip_inference.main import main
few, many, out, checkpoint, workers = sys.argv[1:]
def used():
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
def run(folder, out):
    main(folder, out, enable_text=False, clip_model=checkpoint, num_prepro_workers=int(workers), output_partition_count=1)
run(few, out + "/few")  # loads and warms the model
wall, processor = time.perf_counter(), used()
run(many, out + "/many")
print("measured", json.dumps([time.perf_counter() - wall, used() - processor]))
"""


def main(count: int = 256) -> None:
    python = environment()
    if python is None:
        return
    home, settings = Path.cwd(), read_params()[0].search_table
    python, threads = home / python, torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            model()
            pictures = [picture(seed) for seed in range(count)]
            for name, some in (("few", pictures[:8]), ("many", pictures)):
                Path(name).mkdir()
                for number, data in enumerate(some):
                    (Path(name) / f"{number:08}.png").write_bytes(data)
            command = [str(python), "-c", THEIRS, "few", "many", "out", f"open_clip:{MODEL}/{Path(folder) / 'checkpoint.pt'}", str(threads)]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if run.returncode:
                show(f"clip-retrieval failed: {run.stderr[-1000:]}")
                return
            wall, processor = json.loads(next(line for line in run.stdout.splitlines() if line.startswith("measured")).partition(" ")[2])
            write_curated(count, pictures)
            encoder = Encoder(Path("model"), device=settings.device, precision=settings.precision, batch_size=settings.batch_size)
            encoder.images_now(Split(artifacts.CURATED_IMAGES, "library"))  # loads and warms the model
            found: list[np.ndarray] = []
            own = spent(lambda: found.append(encoder.images_now(Split(artifacts.CURATED_IMAGES, "library"))))
            theirs = np.concatenate([np.load(file) for file in sorted(Path("out/many/img_emb").glob("*.npy"))]).astype(np.float32)
            cosine = float(np.einsum("nd,nd->n", found[0], theirs / np.linalg.norm(theirs, axis=1, keepdims=True)).min())
            show(f"{count} pictures by {MODEL} on {encoder.device}, {threads} threads; lowest cosine of the two {cosine:.5f}")
            show(f"onespace {count / own[0]:.1f} pictures/s, clip-retrieval {count / wall:.1f}: {wall / own[0]:.2f} × (wanted: 1.5)")
            show(f"in processor time: clip-retrieval needs {processor / own[1]:.2f} × onespace's")
        finally:
            os.chdir(home)


def environment() -> Path | None:
    """Its python; None where it cannot be installed, which is said."""
    python = ENVIRONMENT / "bin" / "python"
    if (ENVIRONMENT / "made").exists():
        return python
    show(f"installing clip-retrieval into {ENVIRONMENT}")
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)],
        [str(python), "-m", "pip", "install", "--quiet", "uv"],
        [str(ENVIRONMENT / "bin" / "uv"), "pip", "install", "--quiet", "--python", str(python), *PACKAGES],
    ):
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            show(f"clip-retrieval cannot be installed here: {run.stderr[-1000:]}")
            return None
    (ENVIRONMENT / "made").touch()
    return python


def model() -> None:
    """One random model, as a checkpoint that clip-retrieval reads and as a model directory."""
    torch.manual_seed(0)
    made = open_clip.create_model(MODEL, pretrained=None)
    torch.save(made.state_dict(), "checkpoint.pt")
    Path("model").mkdir()
    settings = open_clip.get_model_preprocess_cfg(made)
    written = {"model_cfg": open_clip.get_model_config(MODEL), "preprocess_cfg": settings}
    artifacts.write_json(Path("model") / CONFIG, written)
    artifacts.write_json(Path("model") / artifacts.MODEL_CARD, {"recipe": "base"})
    save_weights(made, Path("model"))


def picture(seed: int) -> bytes:
    """256 × 256, smooth as photographs are; as a PNG file."""
    fields = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(fields).resize((256, 256), Image.Resampling.BICUBIC).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def show(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
