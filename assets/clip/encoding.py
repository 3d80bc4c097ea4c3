"""Images and texts to unit-norm embeddings with a locked model. The one way in which stages, table and queries encode.

Shapes: N images, T texts, d embedding, L tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch.func import functional_call
from torch.nn.functional import normalize

from assets.clip.decoding import decode
from assets.clip.device import autocast
from assets.clip.model import Clip, Preprocess, Tokenizer, is_hugging_face, text_tower
from assets.progress import track

A = TypeVar("A")
B = TypeVar("B")


def ahead(function: Callable[[A], B], items: Iterable[A], depth: int) -> Iterator[B]:
    """`map` in threads, in order, never more than `depth` results ahead of the consumer (Pillow leaves the GIL while it works)."""
    with ThreadPoolExecutor(max_workers=cpu_count()) as pool:
        items = iter(items)
        waiting = [pool.submit(function, item) for item in itertools.islice(items, depth)]
        waiting.reverse()
        while waiting:
            done = waiting.pop().result()
            for item in itertools.islice(items, 1):
                waiting.insert(0, pool.submit(function, item))
            yield done


def encode_images(
    model: Clip, preprocess: Preprocess, images: Iterable[bytes], *, total: int, batch_size: int, device: str, precision: str
) -> np.ndarray:
    """float32 [N, d], unit norm, in the order of `images` (encoded pictures that `decode` reads)."""
    return encode_opened(model, preprocess, images, decode, total=total, batch_size=batch_size, device=device, precision=precision)


def encode_opened(
    model: Clip,
    preprocess: Preprocess,
    items: Iterable[A],
    open_item: Callable[[A], Image.Image],
    *,
    total: int,
    batch_size: int,
    device: str,
    precision: str,
) -> np.ndarray:
    """float32 [N, d], unit norm, in the order of `items`; `open_item` gives each one's RGB picture, in a thread, when its turn is near."""
    pixels = ahead(lambda item: preprocess(open_item(item)), track(items, total, "encoding images", "images"), depth=2 * batch_size)
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


def encode_tokens(model: Clip, tokens: torch.Tensor, device: str) -> torch.Tensor:
    """What the model's encode_text gives for tokens [T, L] (on the CPU), [T, ·] on `device`; not normalised.

    Columns that no text's result depends on are left out, which is most of the work for short texts.
    """
    longest = used_length(model, tokens)
    if longest == tokens.shape[1]:
        return model.encode_text(tokens.to(device), normalize=False)
    return functional_call(_EncodeText(model), _cut_to(model, longest), (tokens[:, :longest].to(device),))


def used_length(model: Clip, tokens: torch.Tensor) -> int:
    """The number of leading columns of tokens [T, L] that the texts' embeddings depend on.

    A tower that masks its padding needs what is before it; one with causal attention that reads its result at the end-of-text token
    needs what is before that. Any other, such as SigLIP's, which sees the padding and reads its result there, needs all columns.
    """
    tower = text_tower(model)
    if tower is not None and is_hugging_face(tower):
        used = (tokens != tower.config.pad_token_id).any(dim=0).nonzero()
        return int(used[-1]) + 1 if len(used) else 1
    if tower is None:
        causal, pool, end = model.attn_mask is not None, model.text_pool_type, model.text_eos_id
    else:
        # a class token at the end (CoCa) moves with the length
        causal, pool, end = tower.attn_mask is not None and tower.cls_emb is None, tower.pool_type, tower.eos_id
    if not causal or pool not in ("argmax", "eos"):
        return tokens.shape[1]
    # as open_clip's text_global_pool finds them
    ends = tokens.argmax(dim=1) if pool == "argmax" else (tokens == end).int().argmax(dim=1)
    return int(ends.max()) + 1


class _EncodeText(torch.nn.Module):
    """encode_text as a module's call, which functional_call can make with other tensors in place of the model's."""

    def __init__(self, model: Clip) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model.encode_text(tokens, normalize=False)


def _cut_to(model: Clip, length: int) -> dict[str, torch.Tensor]:
    """The tensors that open_clip's causal towers keep at the size of the whole context, for tokens of `length` columns."""
    tower = text_tower(model)
    if tower is None:
        return {
            "model.positional_embedding": model.positional_embedding[:length],
            "model.attn_mask": model.attn_mask[:length, :length],
        }
    return {} if is_hugging_face(tower) else {"model.text.attn_mask": tower.attn_mask[:length, :length]}


def embedding_size(model: Clip) -> int:
    """d, the size of the joint space."""
    tower = text_tower(model)
    if tower is not None and hasattr(tower, "output_dim"):
        return int(tower.output_dim)
    return int(model.text_projection.shape[1])
