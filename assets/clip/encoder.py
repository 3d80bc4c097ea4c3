"""A CLIP model that encodes: pictures and texts to unit-norm embeddings, those of its locked towers kept for every stage that asks again.

Shapes: N pictures, T texts, d embedding, w width of the text tower.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from torch.nn.functional import normalize

from assets import artifacts
from assets.clip.device import device_here, device_of
from assets.clip.encoding import embedding_size, encode_images, encode_texts, text_features
from assets.clip.model import WEIGHTS, Clip, Preprocess, Tokenizer, load_clip
from assets.clip.text_projection import is_text_projection, project, projection_width, without_text_projection
from assets.engine import HERE, Engine, Work
from assets.imports import PACKAGE, imported_files
from assets.kept import kept_rows
from assets.progress import track

BATCH_SIZE = 256  # of stages that have no setting for it; one for all, so that they find each other's embeddings
BATCHES_A_CHUNK = 16  # kept together: a killed run goes on after them

Item = TypeVar("Item")
Loaded = tuple[Clip, Preprocess, Tokenizer]


class Pictures(Protocol[Item]):
    """Pictures in an order of their own: a split of a picture table, the files of a benchmark."""

    def digests(self) -> list[bytes]:
        """Of each, in order: of all that decides which pixels it shows, besides code."""

    def __len__(self) -> int: ...

    def items(self) -> Iterable[Item]:
        """What stands for each, in order, read when its turn is near."""

    def open(self, item: Item) -> Image.Image:
        """The RGB picture of one; called in threads."""


class Encoder:
    """The model of one directory, on one device, at one precision.

    `images` and `texts` encode with the model as its directory holds it, and are kept on disk: recipes that share a tower share its
    embeddings. Call them before the model trains. `images_now` and `texts_now` encode with the model as it is at the moment, trained or
    not, and nothing of theirs is kept. The pictures of `images` are encoded by the workers of an engine, each of which loads the model;
    all else is encoded here.
    """

    def __init__(
        self,
        directory: Path,
        *,
        device: str,
        precision: str,
        batch_size: int = BATCH_SIZE,
        loaded: Loaded | None = None,
        engine: Engine = HERE,
    ) -> None:
        """`device`: a setting, such as auto, or a device of torch's. The model is loaded when it is first needed, unless it is given.

        `loaded`: what `load_clip` would give. Of a model that is not in its directory yet, use `images_now` and `texts_now` alone.
        """
        self.directory = directory
        self.engine = engine
        self.device = device_here(engine, device)
        self.precision = precision
        self.batch_size = batch_size
        self._setting = device
        self._given = loaded

    def __reduce__(self) -> tuple[Any, ...]:
        """As a worker of its engine, without the model, which the worker loads."""
        return _worker, (self.directory, self._device_of_images, self.precision, self.batch_size)

    @cached_property
    def _device_of_images(self) -> str:
        return device_of(self.engine, self._setting)

    @cached_property
    def _loaded(self) -> Loaded:
        return self._given or load_clip(self.directory, self.device)

    @property
    def model(self) -> Clip:
        return self._loaded[0]

    @property
    def preprocess(self) -> Preprocess:
        return self._loaded[1]

    @property
    def tokenizer(self) -> Tokenizer:
        return self._loaded[2]

    @property
    def dimension(self) -> int:
        """d, the size of the joint space."""
        return embedding_size(self.model)

    def in_batches_of(self, size: int) -> Encoder:
        """The same model, not a copy of it, with another batch size."""
        return Encoder(
            self.directory, device=self.device, precision=self.precision, batch_size=size, loaded=self._loaded, engine=self.engine
        )

    @property
    def how(self) -> dict[str, Any]:
        """What decides the result beside the model, the pictures and the texts."""
        return {"batch_size": self.batch_size, "device": self.device, "precision": self.precision}

    def images(self, pictures: Pictures[Any]) -> np.ndarray:
        """float32 [N, d], unit norm, mapped from disk."""
        how = self.how | {"device": self._device_of_images}

        def compute(rows: Sequence[int]) -> Iterator[np.ndarray]:
            wanted = set(rows)
            items = track((item for row, item in enumerate(pictures.items()) if row in wanted), len(rows), "encoding images", "images")
            # here the pictures of a chunk are read as they are encoded; what is sent is read first, so it is a batch
            size = self.batch_size * (1 if self.engine.remote else BATCHES_A_CHUNK)
            pieces = (itertools.islice(items, size) for _ in range(0, len(rows), size))
            yield from self.engine.map(self, pieces, pictures, device=how["device"])

        determined_by = {"tower": self.tower_sha256("image"), **how}
        return kept_rows("images", determined_by, _code_of(pictures), pictures.digests(), self.dimension, compute)

    def opened(self) -> AbstractContextManager[Work]:
        """What a worker of the engine does with a piece of `images`."""
        return nullcontext(self._encoded)

    def _encoded(self, pictures: Pictures[Any], items: Iterable[Any]) -> np.ndarray:
        return encode_images(self.model, self.preprocess, items, pictures.open, **self.how)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [T, d], unit norm, in the order of `texts`."""
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        features = torch.from_numpy(self.text_features(texts)).to(self.device)
        with torch.inference_mode():
            return normalize(project(self.model, features), dim=1).cpu().numpy()

    def text_features(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [T, w], mapped from disk: what the text tower's projection takes, in the order of `texts`."""

        def compute(rows: Sequence[int]) -> Iterator[np.ndarray]:
            with without_text_projection(self.model):
                yield text_features(self.model, self.tokenizer, [texts[row] for row in rows], **self.how).cpu().numpy()

        digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        determined_by = {"tower": self.tower_sha256("text"), **self.how}
        return kept_rows("texts", determined_by, imported_files(__name__), digests, projection_width(self.model), compute)

    def images_now(self, pictures: Pictures[Any]) -> np.ndarray:
        """float32 [N, d], unit norm, by the model as it is now."""
        items = track(pictures.items(), len(pictures), "encoding images", "images")
        return encode_images(self.model, self.preprocess, items, pictures.open, **self.how)

    def texts_now(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [T, d], unit norm, by the model as it is now."""
        return encode_texts(self.model, self.tokenizer, texts, **self.how)

    def tower_sha256(self, tower: Literal["image", "text"]) -> str:
        """Of a tower's weights, the text tower's without its projection, and all settings of the model directory."""
        digest = hashlib.sha256()
        for file in sorted(path for path in self.directory.iterdir() if path.name not in (WEIGHTS, artifacts.MODEL_CARD)):
            digest.update(f"{file.name}\0{artifacts.sha256_of(file)}\0".encode())
        file = (self.directory / WEIGHTS).resolve()
        digest.update(_weights_sha256(file, tower, file.stat().st_size, file.stat().st_mtime_ns).encode())
        return digest.hexdigest()


def _worker(directory: Path, device: str, precision: str, batch_size: int) -> Encoder:
    return Encoder(directory, device=device, precision=precision, batch_size=batch_size)


def _code_of(pictures: Pictures[Any]) -> list[Path]:
    """The encoder's code, and the code that reads and opens these pictures."""
    module = type(pictures).__module__
    if module.split(".")[0] == PACKAGE.name:
        return list(imported_files(__name__, module))
    return [*imported_files(__name__), Path(inspect.getfile(type(pictures)))]


@lru_cache(maxsize=8)
def _weights_sha256(file: Path, tower: Literal["image", "text"], size: int, changed_ns: int) -> str:
    """A stage asks several times, of gigabytes; size and time of change are there to read again what was written anew."""
    digest = hashlib.sha256()
    with safe_open(file, framework="pt") as weights:
        for name in sorted(weights.keys()):
            of_neither = name in ("logit_scale", "logit_bias") or is_text_projection(name)
            if name.startswith("visual.") == (tower == "image") and not of_neither:
                tensor = weights.get_tensor(name)
                digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
                digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
