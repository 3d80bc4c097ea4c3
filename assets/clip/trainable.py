"""Which parameters of a tower train, and at what share of the learning rate; all others are locked. The training itself is elsewhere.

A tower's parameters fall into groups of layers, from its input to its last layer, and the projection into the joint space.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from timm.models import group_parameters

from assets.clip.image_towers import image_tower_of
from assets.clip.model import Clip
from assets.clip.text_towers import text_tower_of
from assets.errors import UserError

Tower = Literal["image", "text"]
Trains = Literal["projection", "last_groups", "all", "lora"]


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
    of = image_tower_of(model) if tower == "image" else text_tower_of(model)
    projection = of.projection()
    groups = group_parameters(of.layers, of.matcher())
    layers = [
        [of.prefix + name for name in groups[depth] if not name.startswith(of.others) and of.prefix + name not in projection]
        for depth in sorted(groups)
    ]
    return [*filter(None, layers), sorted(projection)]
