"""Which parameters of a tower train, and at what share of the learning rate; all others are locked. How they train is not known here.

A tower's parameters fall into groups of layers, from its input to its last layer, and the projection into the joint space.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from timm.models import group_parameters

from assets.clip.model import Clip, is_hugging_face, is_modified_resnet, is_timm, text_tower
from assets.clip.text_projection import is_text_projection
from assets.errors import UserError

Tower = Literal["image", "text"]
Trains = Literal["projection", "last_groups", "all", "lora"]

THE_REST = (r"", (99999,))  # timm's sign for "in the group before", the last layer's
# Layers as timm names them in its models: a pattern of what comes before the layers, the layers by number, and what comes after them.
VIT = {
    "stem": r"(?:conv1|class_embedding|positional_embedding|ln_pre)\b",
    "layers": [(r"transformer\.resblocks\.(\d+)\.", None), THE_REST],
}
RESNET = {"stem": r"(?:conv|bn)\d\.", "layers": [(r"layer(\d+)\.(\d+)\.", None), THE_REST]}
TEXT = {
    "stem": r"(?:token_embedding|positional_embedding|cls_emb)\b",
    "layers": [(r"transformer\.resblocks\.(\d+)\.", None), THE_REST],
}
HUGGING_FACE = {
    "stem": r"(?:embeddings|embed_tokens|embed_positions|shared|layernorm_embedding|encoder\.(?:embed|relative))",
    "layers": [(r"(?:.*?\.)??(?:layers?|block|h)\.(\d+)\.", None), THE_REST],
}


def unlock(model: Clip, tower: Tower, trains: Trains, unlocked_groups: int, lora: dict[str, Any] | None) -> None:
    """Lock the tower but for what `trains` names, the projection among it in every case.

    projection: nothing else. last_groups: the last `unlocked_groups` groups of layers. all: the whole tower. lora: adapters with the
    settings `lora` on the attention and MLP layers, until `fold`.
    """
    *layers, projection = layer_groups(model, tower)
    if trains == "projection" and not projection:
        raise UserError(f"{tower}_tower.trains: this model's {tower} tower has no projection. Choose last_groups, all or lora.")
    if trains == "last_groups" and unlocked_groups > len(layers):
        raise UserError(
            f"{tower}_tower.unlocked_groups: {unlocked_groups} given, and this model's {tower} tower has {len(layers)} groups of layers."
            f" Give 1 to {len(layers)}, or set trains: all."
        )
    parameters = dict(model.named_parameters())
    for names in (*layers, projection):
        for name in names:
            parameters[name].requires_grad_(False)
    chosen = {"projection": [], "last_groups": layers[-unlocked_groups:], "all": layers, "lora": []}[trains]
    for names in (*chosen, projection):
        for name in names:
            parameters[name].requires_grad_(True)
    if trains == "lora":
        from assets.clip.lora import add_adapters  # peft takes seconds to import

        assert lora is not None
        add_adapters(model, tower, **lora)


def fold(model: Clip, trains: Trains) -> None:
    """Make a plain open_clip model of one that trained: adapters are added to the weights and taken away."""
    if trains == "lora":
        from assets.clip.lora import fold_adapters

        fold_adapters(model)


def trained_parameters(model: Clip, tower: Tower) -> dict[str, torch.nn.Parameter]:
    """The tower's unlocked parameters by their names in the model, in the model's order."""
    own = {name for names in layer_groups(model, tower) for name in names}
    return {name: parameter for name, parameter in model.named_parameters() if name in own and parameter.requires_grad}


def learning_rate_shares(model: Clip, tower: Tower, layer_decay: float) -> dict[str, float]:
    """Layer-wise decay (BEiT, arXiv 2106.08254): a group's learning rate is `layer_decay` of the next one's, the projection's is 1.

    By the parameters' names in the model, locked ones too.
    """
    groups = layer_groups(model, tower)
    return {name: layer_decay ** (len(groups) - 1 - depth) for depth, names in enumerate(groups) for name in names}


def layer_groups(model: Clip, tower: Tower) -> list[list[str]]:
    """Names of the tower's parameters in the model, by group from the input on; the last list is the projection's, and may be empty.

    The groups are open_clip's (`--lock-image-unlocked-groups`), and timm's for its models; what follows the last layer belongs to it.
    """
    module, prefix, matcher, outside = _anatomy(model, tower)
    projection = _projection(model, tower)
    groups = group_parameters(module, matcher)
    layers = [
        [prefix + name for name in groups[depth] if not name.startswith(outside) and prefix + name not in projection]
        for depth in sorted(groups)
    ]
    return [*filter(None, layers), sorted(projection)]


def _anatomy(model: Clip, tower: Tower) -> tuple[torch.nn.Module, str, Any, tuple[str, ...]]:
    """(the module that holds the layers, its prefix in the model, the matcher of its parameters' names, names in it of other parts)."""
    if tower == "image":
        visual = model.visual
        if is_timm(visual):
            if not hasattr(visual.trunk, "group_matcher"):
                raise UserError(f"image_tower: timm tells no groups of layers for {type(visual.trunk).__name__}. Choose another model.")
            return visual.trunk, "visual.trunk.", visual.trunk.group_matcher(), ()
        return visual, "visual.", RESNET if is_modified_resnet(visual) else VIT, ()
    text = text_tower(model)
    if text is None:  # open_clip's first CLIP class holds the text tower's parts itself, beside the rest
        return model, "", TEXT, ("visual.", "logit_scale", "logit_bias")
    if is_hugging_face(text):
        return text.transformer, "text.transformer.", HUGGING_FACE, ()
    return text, "text.", TEXT, ()


def _projection(model: Clip, tower: Tower) -> set[str]:
    """Names of the parameters that map the tower's own width to the joint space."""
    if tower == "text":
        return {name for name, _ in model.named_parameters() if is_text_projection(name)}
    if is_timm(model.visual):
        classifier = model.visual.trunk.get_classifier()  # where open_clip takes the network's own as the projection
        inner = {id(parameter) for parameter in classifier.parameters()} if isinstance(classifier, torch.nn.Module) else set()
        return _named(model, ("visual.head",)) | {
            f"visual.trunk.{name}" for name, parameter in model.visual.trunk.named_parameters() if id(parameter) in inner
        }
    return _named(model, ("visual.proj", "visual.attnpool.c_proj"))


def _named(model: Clip, prefixes: Iterable[str]) -> set[str]:
    starts = tuple(f"{prefix}." for prefix in prefixes)
    return {name for name, _ in model.named_parameters() if name in prefixes or name.startswith(starts)}
