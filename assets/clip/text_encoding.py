"""Tokens to text embeddings. Nothing is computed that the embeddings do not depend on.

Shapes: T texts, L tokens, d embedding, w width of the tower.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch.utils.checkpoint import checkpoint

from assets.clip.model import Clip
from assets.clip.text_towers import text_tower_of


def encode_tokens(model: Clip, tokens: torch.Tensor, device: str) -> torch.Tensor:
    """What the model's encode_text gives for tokens [T, L] (on the CPU), [T, ·] on `device`; not normalised.

    Columns that no text's result depends on are left out, which is most of the work for short texts. A causal tower that reads its result
    at the end of text has its last MLP computed there alone.
    """
    tower = text_tower_of(model)
    ends = tower.ends_of_text(tokens)
    used = tokens[:, : tower.used_length(tokens, ends)].to(device)
    return model.encode_text(used, normalize=False) if ends is None else _encode_to_ends(tower.parts, used, ends.to(device))


def _encode_to_ends(parts: Any, tokens: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """encode_text of open_clip's own tower, whose modules `parts` has, for tokens [T, L], read at columns `ends` [T]."""
    length, transformer = tokens.shape[1], parts.transformer
    half = transformer.get_cast_dtype()
    x = parts.token_embedding(tokens).to(half) + parts.positional_embedding[:length].to(half)
    causal = parts.attn_mask[:length, :length]
    *blocks, last = transformer.resblocks
    for block in blocks:
        if transformer.grad_checkpointing and torch.is_grad_enabled():
            x = checkpoint(block, x, attn_mask=causal, use_reentrant=False)
        else:
            x = block(x, attn_mask=causal)
    pooled = parts.ln_final(_last_block(last, x, ends, causal))
    if parts.text_projection is None:
        return pooled
    return parts.text_projection(pooled) if isinstance(parts.text_projection, torch.nn.Module) else pooled @ parts.text_projection


def _last_block(block: Any, x: torch.Tensor, ends: torch.Tensor, causal: torch.Tensor) -> torch.Tensor:
    """[T, w] of the block's output [T, L, w] at `ends`, which alone go through the MLP."""
    texts = torch.arange(len(x), device=x.device)
    if not isinstance(block, ResidualAttentionBlock):  # CustomResidualAttentionBlock has other parts
        return block(x, attn_mask=causal)[texts, ends]
    pooled = (x + block.ls_1(block.attention(block.ln_1(x), attn_mask=causal)))[texts, ends]
    return pooled + block.ls_2(block.mlp(block.ln_2(pooled)))
