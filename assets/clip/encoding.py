"""Images and texts to unit-norm embeddings with a model as it is. What is kept of them is the encoder's concern.

Shapes: N images, T texts, d embedding, L tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import normalize

from assets import machine
from assets.clip.device import autocast
from assets.clip.model import Clip, Preprocess, Tokenizer
from assets.clip.text_encoding import encode_tokens
from assets.clip.text_towers import text_tower_of

A = TypeVar("A")
B = TypeVar("B")


def ahead(function: Callable[[A], B], items: Iterable[A], depth: int) -> Iterator[B]:
    """`map` in threads, in order, never more than `depth` results ahead of the consumer (Pillow leaves the GIL while it works)."""
    with ThreadPoolExecutor(max_workers=machine.cores()) as pool:
        items = iter(items)
        waiting = [pool.submit(function, item) for item in itertools.islice(items, depth)]
        waiting.reverse()
        while waiting:
            done = waiting.pop().result()
            for item in itertools.islice(items, 1):
                waiting.insert(0, pool.submit(function, item))
            yield done


def encode_images(
    model: Clip,
    preprocess: Preprocess,
    items: Iterable[A],
    open_item: Callable[[A], Image.Image],
    *,
    batch_size: int,
    device: str,
    precision: str,
) -> np.ndarray:
    """float32 [N, d], unit norm, in the order of `items`; `open_item` gives each one's RGB picture, in a thread, when its turn is near."""
    pixels = ahead(lambda item: preprocess(open_item(item)), items, depth=2 * batch_size)
    rows = []
    with torch.inference_mode():
        while batch := list(itertools.islice(pixels, batch_size)):
            stacked = torch.stack(batch).to(device, memory_format=torch.channels_last)
            with autocast(device, precision):
                embedded = model.encode_image(stacked)
            rows.append(normalize(embedded.float(), dim=-1).cpu().numpy())
    return np.concatenate(rows) if rows else np.zeros((0, embedding_size(model)), np.float32)


def encode_texts(model: Clip, tokenizer: Tokenizer, texts: Sequence[str], *, batch_size: int, device: str, precision: str) -> np.ndarray:
    """float32 [T, d], unit norm, in the order of `texts`."""
    features = text_features(model, tokenizer, texts, batch_size=batch_size, device=device, precision=precision)
    return normalize(features, dim=1).cpu().numpy() if len(texts) else np.zeros((0, embedding_size(model)), np.float32)


def text_features(model: Clip, tokenizer: Tokenizer, texts: Sequence[str], *, batch_size: int, device: str, precision: str) -> torch.Tensor:
    """What the model's encode_text gives, float32 [T, ·] on `device`, in the order of `texts`; not normalised."""
    # texts of like length side by side: less padding to compute
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    batches = []
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            tokens = tokenizer([texts[row] for row in order[start : start + batch_size]])
            with autocast(device, precision):
                batches.append(encode_tokens(model, tokens, device).float())
    if not batches:
        return torch.zeros(0, 0)
    # out of inference mode, so that a projection can be trained on them
    return torch.cat(batches)[torch.argsort(torch.tensor(order, device=device))].clone()


def embedding_size(model: Clip) -> int:
    """d, the size of the joint space."""
    return text_tower_of(model).dimension
