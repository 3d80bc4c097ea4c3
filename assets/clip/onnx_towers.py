"""Both towers as ONNX graphs, run without torch: texts and pictures to unit-norm vectors. Writing the graphs is the stage export's.

A folder of graphs is what Immich reads: `config.json`, `visual/` (model.onnx, preprocess_cfg.json) and `textual/` (model.onnx,
tokenizer.json, tokenizer_config.json). Shapes: N pictures or texts, L tokens, S side in pixels, d embedding.
"""

from __future__ import annotations

import html
import json
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from assets.errors import UserError

GRAPH = "model.onnx"
VISUAL, TEXTUAL = "visual", "textual"
PREPROCESSING = "preprocess_cfg.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
CONFIG = "config.json"
AT_ONCE = 64  # texts or pictures in one run of a graph
RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}
RESIZE_MODES = ("squash", "shortest", "longest")
BLANK = "▁Ġ "


@dataclass(frozen=True)
class Reading:
    """How the tokenizer reads one text, in the terms of assets.clip.readable."""

    words: int
    unknown: int
    cut: bool
    spelled: bool

    @property
    def unreadable(self) -> bool:
        return self.unknown == self.words


class OnnxTowers:
    """The graphs in `directory`. Each tower is loaded when it is first used."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config: dict[str, Any] = json.loads((directory / CONFIG).read_text(encoding="utf-8"))

    @property
    def dimension(self) -> int:
        return int(self.config["embed_dim"])

    @cached_property
    def tokenizer(self) -> OnnxTokenizer:
        return OnnxTokenizer(self.directory / TEXTUAL, self.config["text_cfg"])

    @cached_property
    def preprocessing(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / VISUAL / PREPROCESSING).read_text(encoding="utf-8"))
        return found

    @cached_property
    def _textual(self) -> Any:
        return _session(self.directory / TEXTUAL / GRAPH)

    @cached_property
    def _visual(self) -> Any:
        return _session(self.directory / VISUAL / GRAPH)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [N, d], unit norm."""
        given = self._textual.get_inputs()[0]
        fixed = given.shape[1] if isinstance(given.shape[1], int) else None
        rows = [np.zeros((0, self.dimension), np.float32)]
        for start in range(0, len(texts), AT_ONCE):
            tokens = self.tokenizer.tokens(texts[start : start + AT_ONCE], fixed)
            rows.append(self._textual.run(None, {given.name: tokens})[0])
        return np.concatenate(rows)

    def pictures(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """float32 [N, d], unit norm where the model gives any; the pictures are RGB."""
        name = self._visual.get_inputs()[0].name
        rows = [np.zeros((0, self.dimension), np.float32)]
        for start in range(0, len(pictures), AT_ONCE):
            pixels = np.stack([pixels_of(picture, self.preprocessing) for picture in pictures[start : start + AT_ONCE]])
            rows.append(self._visual.run(None, {name: pixels})[0])
        return np.concatenate(rows)

    def readings(self, texts: Sequence[str]) -> list[Reading]:
        return self.tokenizer.readings(texts)


def _session(graph: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class OnnxTokenizer:
    """Texts to int32 [N, L] as the model's own tokenizer gives them."""

    def __init__(self, directory: Path, text_cfg: dict[str, Any]) -> None:
        from tokenizers import Tokenizer

        self.inner = Tokenizer.from_file(str(directory / TOKENIZER))
        own = json.loads((directory / TOKENIZER_CONFIG).read_text(encoding="utf-8"))
        self.context = int(own["model_max_length"])
        self.pad = int(own["pad_token_id"])
        self.unknown: int | None = own["unknown_token_id"]
        self.special = frozenset(own["special_token_ids"])
        self.of_bytes: bool = own["of_bytes"]
        self.clean = CLEANING[own["clean"]]

    def tokens(self, texts: Sequence[str], length: int | None) -> np.ndarray:
        """[N, L] with L = `length`, or the longest text's where it is None."""
        rows = [self._cut(encoding.ids) for encoding in self._encoded(texts)]
        longest = length or max(map(len, rows))
        return np.array([row + [self.pad] * (longest - len(row)) for row in rows], np.int32)

    def _encoded(self, texts: Sequence[str]) -> Any:
        return self.inner.encode_batch([self.clean(text) for text in texts])

    def _cut(self, ids: list[int]) -> list[int]:
        """At most `context` tokens; the last special one stays at the end, as both kinds of tokenizer have it."""
        if len(ids) <= self.context:
            return ids
        end = ids[-1:] if ids[-1] in self.special else []
        return [*ids[: self.context - len(end)], *end]

    def readings(self, texts: Sequence[str]) -> list[Reading]:
        found = []
        for encoding in self._encoded(texts):
            words = [
                (number, token)
                for number, token in zip(encoding.ids, encoding.tokens, strict=True)
                if number == self.unknown or not (number in self.special or not token.removesuffix("</w>").strip(BLANK))
            ]
            unknown = sum(number == self.unknown for number, _ in words)
            pieces = sum(self._is_piece(token.removesuffix("</w>")) for _, token in words)
            found.append(Reading(len(words), unknown, len(encoding.ids) > self.context, 2 * pieces > len(words)))
        return found

    def _is_piece(self, token: str) -> bool:
        """Whether it is bytes that make no whole character."""
        if not self.of_bytes:
            return re.fullmatch(r"<0x[89A-F][0-9A-F]>", token) is not None
        try:
            bytes(_byte_of()[character] for character in token).decode()
        except UnicodeDecodeError:
            return True
        except KeyError:  # an added token, written as it is
            return False
        return False


def _byte_of() -> dict[str, int]:
    """GPT-2's spelling of bytes as characters, backwards."""
    if not _BYTES:
        plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
        others = [byte for byte in range(256) if byte not in plain]
        _BYTES.update({chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)})
    return _BYTES


_BYTES: dict[str, int] = {}


def pixels_of(picture: Image.Image, preprocessing: dict[str, Any]) -> np.ndarray:
    """float32 [3, S, S]: an RGB picture as the model's own preprocessing makes it."""
    height, width = preprocessing["size"]
    picture = _resized(picture, preprocessing["resize_mode"], (width, height), RESAMPLING[preprocessing["interpolation"]], preprocessing)
    values = np.asarray(picture, np.float32) / np.float32(255)
    mean, std = (np.array(preprocessing[name], np.float32) for name in ("mean", "std"))
    return np.ascontiguousarray(((values - mean) / std).transpose(2, 0, 1))


def _resized(picture: Image.Image, mode: str, size: tuple[int, int], resampling: Any, preprocessing: dict[str, Any]) -> Image.Image:
    """As open_clip's transforms of that resize_mode."""
    if mode == "squash":
        return picture.resize(size, resampling)
    ratios = (size[0] / picture.width, size[1] / picture.height)
    scale = max(ratios) if mode == "shortest" else min(ratios)
    if mode == "shortest":  # as torchvision rounds: down
        small = (max(size[0], int(picture.width * scale)), max(size[1], int(picture.height * scale)))
    else:
        small = (round(picture.width * scale), round(picture.height * scale))
    if small != picture.size:
        picture = picture.resize(small, resampling)
    left, top = round((small[0] - size[0]) / 2), round((small[1] - size[1]) / 2)
    canvas = Image.new("RGB", size, (int(preprocessing.get("fill_color", 0)),) * 3)
    canvas.paste(picture, (-left, -top))
    return canvas


def _fixed(text: str) -> str:
    if text.isascii() and text.isprintable() and "&" not in text:
        return text.strip()  # as ftfy leaves it, and to import it takes longer than to search
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def _whitespace(text: str) -> str:
    return " ".join(_fixed(text).split())


def _canonical(text: str) -> str:
    text = _fixed(text).replace("_", " ").translate(str.maketrans("", "", string.punctuation))
    return " ".join(text.lower().split())


CLEANING = {"whitespace": _whitespace, "lower": lambda text: _whitespace(text).lower(), "canonicalize": _canonical}


def check_supported(preprocessing: dict[str, Any]) -> None:
    """UserError for a preprocessing that `pixels_of` cannot do."""
    if (
        preprocessing["resize_mode"] not in RESIZE_MODES
        or preprocessing["interpolation"] not in RESAMPLING
        or preprocessing["mode"] != "RGB"
    ):
        raise UserError(f"pictures of this model are prepared in a way that has no form without torch: {preprocessing}.")
