"""Tokens to text embeddings, computing nothing that the embeddings do not depend on.

Shapes: T texts, L tokens, d embedding, w width of the tower.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch.utils.checkpoint import checkpoint

from assets.clip.model import Clip, is_hugging_face, text_tower


def encode_tokens(model: Clip, tokens: torch.Tensor, device: str) -> torch.Tensor:
    """What the model's encode_text gives for tokens [T, L] (on the CPU), [T, ·] on `device`; not normalised.

    Columns that no text's result depends on are left out, which is most of the work for short texts. A causal tower that reads its result
    at the end of text has its last MLP computed there alone.
    """
    ends = ends_of_text(model, tokens)
    used = tokens[:, : used_length(model, tokens, ends)].to(device)
    return model.encode_text(used, normalize=False) if ends is None else _encode_to_ends(model, used, ends.to(device))


def used_length(model: Clip, tokens: torch.Tensor, ends: torch.Tensor | None) -> int:
    """The number of leading columns of tokens [T, L] that the texts' embeddings depend on; `ends`: their `ends_of_text`.

    A tower that masks its padding needs what is before it; one with causal attention that reads its result at the end-of-text token
    needs what is before that. Any other, such as SigLIP's, which sees the padding and reads its result there, needs all columns.
    """
    tower = text_tower(model)
    if tower is not None and is_hugging_face(tower):
        used = (tokens != tower.config.pad_token_id).any(dim=0).nonzero()
        return int(used[-1]) + 1 if len(used) else 1
    return tokens.shape[1] if ends is None else int(ends.max()) + 1


def ends_of_text(model: Clip, tokens: torch.Tensor) -> torch.Tensor | None:
    """The column int64 [T] at which a causal tower reads each text's result, as open_clip's text_global_pool finds it; None of others."""
    tower = text_tower(model)
    if tower is None:
        causal, pool, end = model.attn_mask is not None, model.text_pool_type, model.text_eos_id
    elif is_hugging_face(tower):
        return None
    else:
        # a class token at the end (CoCa) moves with the length
        causal, pool, end = tower.attn_mask is not None and tower.cls_emb is None, tower.pool_type, tower.eos_id
    if not causal or pool not in ("argmax", "eos"):
        return None
    return tokens.argmax(dim=1) if pool == "argmax" else (tokens == end).int().argmax(dim=1)


def _encode_to_ends(model: Clip, tokens: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """encode_text of open_clip's own tower (CLIP and CustomTextCLIP name its parts alike) for tokens [T, L], read at columns `ends` [T]."""
    tower: Any = text_tower(model) or model
    length, transformer = tokens.shape[1], tower.transformer
    half = transformer.get_cast_dtype()
    x = tower.token_embedding(tokens).to(half) + tower.positional_embedding[:length].to(half)
    causal = tower.attn_mask[:length, :length]
    *blocks, last = transformer.resblocks
    for block in blocks:
        if transformer.grad_checkpointing and torch.is_grad_enabled():
            x = checkpoint(block, x, attn_mask=causal, use_reentrant=False)
        else:
            x = block(x, attn_mask=causal)
    pooled = tower.ln_final(_last_block(last, x, ends, causal))
    if tower.text_projection is None:
        return pooled
    return tower.text_projection(pooled) if isinstance(tower.text_projection, torch.nn.Module) else pooled @ tower.text_projection


def _last_block(block: Any, x: torch.Tensor, ends: torch.Tensor, causal: torch.Tensor) -> torch.Tensor:
    """[T, w] of the block's output [T, L, w] at `ends`, which alone go through the MLP."""
    texts = torch.arange(len(x), device=x.device)
    if not isinstance(block, ResidualAttentionBlock):  # CustomResidualAttentionBlock has other parts
        return block(x, attn_mask=causal)[texts, ends]
    pooled = (x + block.ls_1(block.attention(block.ln_1(x), attn_mask=causal)))[texts, ends]
    return pooled + block.ls_2(block.mlp(block.ln_2(pooled)))
