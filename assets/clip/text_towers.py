"""What differs between the kinds of text tower that open_clip builds: a class each. A new kind is one more class in KINDS.

What is done with a tower (encoding, locking, adapters, training) is not decided here. Shapes: T texts, L tokens.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.transformer import TextTransformer

from assets.clip.image_towers import THE_REST, Matcher
from assets.clip.model import Clip
from assets.errors import UserError

TRANSFORMER = {
    "stem": r"(?:token_embedding|positional_embedding|cls_emb)\b",
    "layers": [(r"transformer\.resblocks\.(\d+)\.", None), THE_REST],
}


class TextTower:
    """The text tower of `model`. Names of parameters are those in the model."""

    projection_name: ClassVar[str]  # of the projection into the joint space, in the model, whether it is a matrix or a module
    prefix: ClassVar[str]  # of the names of what `layers` holds
    others: ClassVar[tuple[str, ...]] = ()  # how names in `layers` begin that are not the text tower's

    def __init__(self, model: Clip) -> None:
        self.model = model

    @classmethod
    def fits(cls, model: Clip) -> bool:
        raise NotImplementedError

    @property
    def layers(self) -> torch.nn.Module:
        """The module that holds the layers."""
        raise NotImplementedError

    @property
    def adaptable(self) -> torch.nn.Module:
        """The module whose numbered layers adapters are put on."""
        return self.layers

    def matcher(self) -> Matcher:
        """How the parameters of `layers` fall into groups."""
        return TRANSFORMER

    def projection(self) -> set[str]:
        """Names of the parameters that map the tower's own width to the joint space; may be empty."""
        return {name for name, _ in self.model.named_parameters() if self.is_projection(name)}

    @classmethod
    def is_projection(cls, name: str) -> bool:
        return name == cls.projection_name or name.startswith(f"{cls.projection_name}.")

    @property
    def projection_owner(self) -> Any:
        """The module that has the projection, under the last part of `projection_name`."""
        raise NotImplementedError

    def no_projection(self) -> torch.nn.Module | None:
        """What stands in the projection's place where there is none."""
        return None

    @property
    def dimension(self) -> int:
        """d, the size of what the tower gives."""
        raise NotImplementedError

    def checkpoint(self) -> None:
        """Compute activations again in the backward pass."""
        raise NotImplementedError

    @property
    def parts(self) -> Any:
        """The module with token_embedding, transformer, ln_final …, of a tower that may have `ends_of_text`."""
        raise NotImplementedError

    def ends_of_text(self, tokens: torch.Tensor) -> torch.Tensor | None:
        """The column int64 [T] at which a causal tower reads each text's result, as open_clip's text_global_pool finds it.

        None where the result depends on other columns too.
        """
        return None

    def used_length(self, tokens: torch.Tensor, ends: torch.Tensor | None) -> int:
        """The number of leading columns of tokens [T, L] that the texts' embeddings depend on; `ends`: their `ends_of_text`."""
        return tokens.shape[1] if ends is None else int(ends.max()) + 1


class PartsAtTop(TextTower):
    """open_clip's first CLIP class: the model itself has the text tower's parts, beside the image tower."""

    projection_name = "text_projection"
    prefix = ""
    others = ("visual.", "logit_scale", "logit_bias")

    @classmethod
    def fits(cls, model: Clip) -> bool:
        return getattr(model, "text", None) is None

    @property
    def parts(self) -> Any:
        return self.model

    @property
    def layers(self) -> torch.nn.Module:
        return self.model

    @property
    def adaptable(self) -> torch.nn.Module:
        return self.model.transformer

    @property
    def projection_owner(self) -> Any:
        return self.model

    @property
    def dimension(self) -> int:
        projection = self.model.text_projection
        if projection is None:
            return int(self.model.ln_final.normalized_shape[0])
        return int(projection.out_features if isinstance(projection, torch.nn.Linear) else projection.shape[1])

    def checkpoint(self) -> None:
        self.model.transformer.grad_checkpointing = True

    def ends_of_text(self, tokens: torch.Tensor) -> torch.Tensor | None:
        return _ends(tokens, self.model.attn_mask is not None, self.model.text_pool_type, self.model.text_eos_id)


class OpenClipText(TextTower):
    """A TextTransformer of open_clip's, in a CustomTextCLIP or CoCa."""

    projection_name = "text.text_projection"
    prefix = "text."

    @classmethod
    def fits(cls, model: Clip) -> bool:
        return isinstance(getattr(model, "text", None), TextTransformer)

    @property
    def parts(self) -> Any:
        return self.model.text

    @property
    def layers(self) -> torch.nn.Module:
        return self.model.text

    @property
    def projection_owner(self) -> Any:
        return self.model.text

    @property
    def dimension(self) -> int:
        return int(self.model.text.output_dim)

    def checkpoint(self) -> None:
        self.model.text.set_grad_checkpointing(True)

    def ends_of_text(self, tokens: torch.Tensor) -> torch.Tensor | None:
        tower = self.model.text
        # a class token at the end (CoCa) moves with the length
        return _ends(tokens, tower.attn_mask is not None and tower.cls_emb is None, tower.pool_type, tower.eos_id)


class HuggingFace(TextTower):
    """A Hugging Face encoder, `transformer`, with open_clip's pooling and projection on it. It masks its padding."""

    projection_name = "text.proj"
    prefix = "text.transformer."

    @classmethod
    def fits(cls, model: Clip) -> bool:
        return isinstance(getattr(model, "text", None), HFTextEncoder)

    @property
    def layers(self) -> torch.nn.Module:
        return self.model.text.transformer

    def matcher(self) -> Matcher:
        return {
            "stem": r"(?:embeddings|embed_tokens|embed_positions|shared|layernorm_embedding|encoder\.(?:embed|relative))",
            "layers": [(r"(?:.*?\.)??(?:layers?|block|h)\.(\d+)\.", None), THE_REST],
        }

    @property
    def projection_owner(self) -> Any:
        return self.model.text

    def no_projection(self) -> torch.nn.Module:
        return torch.nn.Identity()

    @property
    def dimension(self) -> int:
        return int(self.model.text.output_dim)

    def checkpoint(self) -> None:
        self.model.text.set_grad_checkpointing(True)

    def used_length(self, tokens: torch.Tensor, ends: torch.Tensor | None) -> int:
        used = (tokens != self.model.text.config.pad_token_id).any(dim=0).nonzero()
        return int(used[-1]) + 1 if len(used) else 1


KINDS: tuple[type[TextTower], ...] = (PartsAtTop, OpenClipText, HuggingFace)


def text_tower_of(model: Clip) -> TextTower:
    for kind in KINDS:
        if kind.fits(model):
            return kind(model)
    known = ", ".join(kind.__name__ for kind in KINDS)
    raise UserError(f"the text tower {type(model.text).__name__} is not supported; supported are {known} (assets/clip/text_towers.py).")


def _ends(tokens: torch.Tensor, causal: bool, pool: str, end: int) -> torch.Tensor | None:
    if not causal or pool not in ("argmax", "eos"):
        return None
    return tokens.argmax(dim=1) if pool == "argmax" else (tokens == end).int().argmax(dim=1)
