"""What differs between the kinds of image tower that open_clip builds: a class each. A new kind is one more class in KINDS.

What is done with a tower (locking, adapters, training) is not decided here.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import PatchDropout, VisionTransformer
from timm.layers import PatchDropout as TimmPatchDropout

from assets.clip.model import Clip
from assets.errors import UserError

Matcher = dict[str, Any]  # how timm groups a module's parameters: a pattern of what comes before the layers, and of the layers by number
THE_REST = (r"", (99999,))  # timm's sign for "in the group before", the last layer's


class ImageTower:
    """The tower `visual` of a model. Names of parameters are those in the model."""

    builds: ClassVar[type[torch.nn.Module]]  # open_clip's class
    prefix: ClassVar[str] = "visual."  # of the names of what `layers` holds
    others: ClassVar[tuple[str, ...]] = ()  # how names in `layers` begin that are not the image tower's

    def __init__(self, visual: Any) -> None:
        self.visual = visual

    @property
    def layers(self) -> torch.nn.Module:
        """The module that holds the layers, and nothing else but the projection."""
        return self.visual

    def matcher(self) -> Matcher:
        """How the parameters of `layers` fall into groups."""
        raise NotImplementedError

    def projection(self) -> set[str]:
        """Names of the parameters that map the tower's own width to the joint space; may be empty."""
        raise NotImplementedError

    def checkpoint(self) -> None:
        """Compute activations again in the backward pass. UserError where the tower cannot."""
        self.visual.set_grad_checkpointing(True)

    def drop_patches(self, share: float) -> None:
        """Leave out a random share of each picture's patches in training mode. UserError where there are no patches."""
        raise UserError(f"patch_dropout: {share}, but this image tower is not a ViT and has no patches to leave out. Set it to 0.0.")

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width in pixels of the pictures that the tower takes."""
        size = self.visual.image_size
        return (int(size[0]), int(size[1])) if isinstance(size, tuple | list) else (int(size), int(size))

    @property
    def size(self) -> int:
        """R, the side in pixels of the square pictures that the tower takes."""
        return self.sides[0]

    @property
    def normalization(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation [3] of pixels in [0, 1] that the tower's preprocessing takes out."""
        return list(self.visual.preprocess_cfg["mean"]), list(self.visual.preprocess_cfg["std"])

    def _named(self, start: str) -> set[str]:
        """Names of the tower's parameters that are `start`, or parts of it."""
        own = (name for name, _ in self.visual.named_parameters())
        return {f"visual.{name}" for name in own if name == start or name.startswith(f"{start}.")}


class ViT(ImageTower):
    builds = VisionTransformer

    def matcher(self) -> Matcher:
        return {
            "stem": r"(?:conv1|class_embedding|positional_embedding|ln_pre)\b",
            "layers": [(r"transformer\.resblocks\.(\d+)\.", None), THE_REST],
        }

    def projection(self) -> set[str]:
        return self._named("proj")

    def drop_patches(self, share: float) -> None:
        self.visual.patch_dropout = PatchDropout(share)


class ResNet(ImageTower):
    """CLIP's own ResNet."""

    builds = ModifiedResNet

    def matcher(self) -> Matcher:
        return {"stem": r"(?:conv|bn)\d\.", "layers": [(r"layer(\d+)\.(\d+)\.", None), THE_REST]}

    def projection(self) -> set[str]:
        return self._named("attnpool.c_proj")

    def checkpoint(self) -> None:  # open_clip accepts the call and does nothing
        raise UserError("gradient_checkpointing: open_clip's ResNets do not support it. Set it to false.")


class Timm(ImageTower):
    """A network of timm's, `trunk`, and open_clip's head on it."""

    builds = TimmModel
    prefix = "visual.trunk."

    @property
    def layers(self) -> torch.nn.Module:
        return self.visual.trunk

    def matcher(self) -> Matcher:
        if not hasattr(self.visual.trunk, "group_matcher"):
            raise UserError(f"image_tower: timm has no groups of layers for {type(self.visual.trunk).__name__}. Choose another model.")
        return self.visual.trunk.group_matcher()

    def projection(self) -> set[str]:
        classifier = self.visual.trunk.get_classifier()  # where open_clip takes the network's own as the projection
        inner = {id(parameter) for parameter in classifier.parameters()} if isinstance(classifier, torch.nn.Module) else set()
        return self._named("head") | {
            f"visual.trunk.{name}" for name, parameter in self.visual.trunk.named_parameters() if id(parameter) in inner
        }

    def checkpoint(self) -> None:
        try:
            self.visual.trunk.set_grad_checkpointing(True)  # open_clip's own call would go on without it
        except (AttributeError, AssertionError) as error:
            raise UserError(f"gradient_checkpointing: this image tower does not support it ({error}). Set it to false.") from None

    def drop_patches(self, share: float) -> None:
        trunk = self.visual.trunk
        if not hasattr(trunk, "patch_drop"):
            super().drop_patches(share)
        trunk.patch_drop = TimmPatchDropout(share, num_prefix_tokens=trunk.num_prefix_tokens)


KINDS: tuple[type[ImageTower], ...] = (ViT, ResNet, Timm)


def image_tower_of(model: Clip) -> ImageTower:
    for kind in KINDS:
        if isinstance(model.visual, kind.builds):
            return kind(model.visual)
    known = ", ".join(kind.builds.__name__ for kind in KINDS)
    raise UserError(f"the image tower {type(model.visual).__name__} is not supported; supported are {known} (assets/clip/image_towers.py).")
