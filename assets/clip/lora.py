"""Low-rank adapters (LoRA, arXiv 2106.09685) on the attention and MLP layers of a tower, by peft; folded into the weights at the end.

Shapes: N images or texts, L tokens, w width.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.nn.functional import scaled_dot_product_attention

from assets.clip.image_towers import image_tower_of
from assets.clip.model import Clip
from assets.clip.text_encoding import encode_tokens
from assets.clip.text_towers import text_tower_of
from assets.errors import UserError

IN_A_LAYER = re.compile(r"(^|\.)\d+\.")  # layers are numbered; what stands before and after them is not


class SplitAttention(torch.nn.Module):
    """Self-attention as torch.nn.MultiheadAttention computes it, its two maps Linear layers, which an adapter can take the place of.

    MultiheadAttention uses the weights of both without calling a layer. peft's own adapter for it adds and subtracts its product at every
    step, after which the locked weights are no longer bit for bit what they were.
    """

    def __init__(self, attention: torch.nn.MultiheadAttention) -> None:
        super().__init__()
        assert attention.in_proj_weight is not None and attention.batch_first
        self.heads = attention.num_heads
        self.in_proj = torch.nn.Linear(attention.embed_dim, 3 * attention.embed_dim, device="meta")
        self.in_proj.weight, self.in_proj.bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = torch.nn.Linear(attention.embed_dim, attention.embed_dim, device="meta")
        self.out_proj.weight, self.out_proj.bias = attention.out_proj.weight, attention.out_proj.bias

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, need_weights: bool, attn_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, None]:
        """[N, L, w] → [N, L, w]; key and value are the query."""
        heads = self.in_proj(query).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [3, N, heads, L, w / heads]
        if attn_mask is not None:
            attn_mask = attn_mask.to(heads.dtype)
            if attn_mask.ndim == 3:  # one for every text and head
                attn_mask = attn_mask.unflatten(0, (-1, self.heads))
        attended = scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=attn_mask)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None

    def whole(self) -> torch.nn.MultiheadAttention:
        """As it was given, with the weights that the two maps have now."""
        attention: Any = torch.nn.MultiheadAttention(self.in_proj.in_features, self.heads, batch_first=True, device="meta")
        attention.in_proj_weight, attention.in_proj_bias = self.in_proj.weight, self.in_proj.bias
        attention.out_proj.weight, attention.out_proj.bias = self.out_proj.weight, self.out_proj.bias
        return attention


def add_adapters(model: Clip, tower: Literal["image", "text"], *, rank: int, alpha: int, dropout: float) -> None:
    """Put an adapter on every linear map of the tower's layers; it starts as no change. Raises UserError where there is none to adapt."""
    module = image_tower_of(model).layers if tower == "image" else text_tower_of(model).adaptable
    for name, attention in list(module.named_modules()):
        if isinstance(attention, torch.nn.MultiheadAttention) and IN_A_LAYER.search(name):
            module.set_submodule(name, SplitAttention(attention))
    targets = [name for name, layer in module.named_modules() if isinstance(layer, torch.nn.Linear) and IN_A_LAYER.search(name)]
    if not targets:
        raise UserError(
            f"{tower}_tower.trains: lora adapts attention and MLP layers, and this model's {tower} tower ({type(module).__name__}) has"
            " none. Choose projection, last_groups or all."
        )
    locked = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets), module)
    for name, parameter in module.named_parameters():  # peft locks all but the adapters
        parameter.requires_grad_("lora_" in name or name.replace(".base_layer.", ".") not in locked)
    _check_used(model, tower, module)


def fold_adapters(model: Clip) -> None:
    """Add the adapters' products to the weights and take the adapters away: what is left is a plain open_clip model."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            model.set_submodule(name, layer.get_base_layer())
    for name, layer in list(model.named_modules()):
        if isinstance(layer, SplitAttention):
            model.set_submodule(name, layer.whole())


def _check_used(model: Clip, tower: Literal["image", "text"], module: torch.nn.Module) -> None:
    """Some towers compute with a layer's weight without calling the layer: an adapter there would change nothing, and never learn."""
    called: set[torch.nn.Module] = set()
    adapted: dict[str, Any] = {name: layer for name, layer in module.named_modules() if isinstance(layer, BaseTunerLayer)}
    hooks = [layer.register_forward_hook(lambda layer, *_: called.add(layer)) for layer in adapted.values()]
    training = model.training
    weight = next(module.parameters())
    try:
        with torch.no_grad():
            model.eval()
            if tower == "image":
                model.encode_image(torch.zeros(1, 3, *image_tower_of(model).sides, device=weight.device, dtype=weight.dtype))
            else:
                encode_tokens(model, torch.ones(1, model.context_length, dtype=torch.int64), str(weight.device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    if unused := [name for name, layer in adapted.items() if layer not in called]:
        raise UserError(
            f"{tower}_tower.trains: lora does not fit this model's {tower} tower ({type(module).__name__}), which reads the weights of"
            f" {len(unused)} of its layers without calling them ({unused[0]}, …). Choose projection, last_groups or all."
        )
