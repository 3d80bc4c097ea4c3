"""Which texts a tokenizer can read: what it does not know, takes for another text, spells in pieces of characters, or cuts off.

It looks at tokens alone and needs no model. Whether a text tower understands what its tokenizer reads is measured elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, bytes_to_unicode

from assets.clip.model import Tokenizer
from assets.pictures.spelling import distinct

MOST = 100_000  # texts of one kind that are looked at; of more, so many evenly spaced ones
EXAMPLES = 5
AT_ONCE = 1000  # texts in one call of a tokenizer
BLANK = "▁Ġ "  # tokens of nothing else stand for a space
END_OF_WORD = "</w>"
BYTE = re.compile(r"<0x[89A-F][0-9A-F]>")  # sentencepiece's token for a byte of a character that it does not know
BYTE_OF = {character: byte for byte, character in bytes_to_unicode().items()}

ANOTHER_BASE = (
    "Use words of a language that the base knows, or take a multilingual base in params.yaml: base_clip: {source: open_clip,"
    " model: xlm-roberta-base-ViT-B-32, pretrained: laion5b_s13b_b90k}."
)

Kind = Literal["word", "unknown", "piece", "none"]  # of a token; none: start, end, padding, a bare space


@dataclass(frozen=True)
class Reading:
    """How a tokenizer reads one text."""

    tokens: tuple[int, ...]  # as the text tower gets them: with start and end, at most its context
    words: int  # how many tokens of the whole text stand for it, all but those of kind none
    unknown: int  # how many of these stand for anything that the tokenizer does not know
    pieces: int  # how many of these are bytes that make no whole character
    cut: bool  # whether the text is longer than the context

    @property
    def unreadable(self) -> bool:
        """Nothing of the text is left: all such texts have one and the same embedding, or nearly so."""
        return self.unknown == self.words

    @property
    def spelled(self) -> bool:
        """Most of it is read byte by byte, as of a script that hardly occurs where the tokenizer comes from."""
        return 2 * self.pieces > self.words


def read_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[Reading]:
    """How open_clip's tokenizer of a model reads each text, in order."""
    vocabulary = _hugging_face(tokenizer) if isinstance(tokenizer, HFTokenizer) else _byte_pairs(tokenizer)
    kinds: dict[int, Kind] = {}
    for start in range(0, len(texts), AT_ONCE):
        for ids in vocabulary.ids(texts[start : start + AT_ONCE]):
            kinds |= {token: vocabulary.kind(token) for token in ids if token not in kinds}
            of_text = [kinds[token] for token in ids]
            end = ids[-1:] if of_text[-1:] == ["none"] else []  # it stays where a text is cut off
            yield Reading(
                tokens=tuple(ids if len(ids) <= vocabulary.context else [*ids[: vocabulary.context - len(end)], *end]),
                words=len(of_text) - of_text.count("none"),
                unknown=of_text.count("unknown"),
                pieces=of_text.count("piece"),
                cut=len(ids) > vocabulary.context,
            )


def readability(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, Any]:
    """What is wrong with some texts, as plain JSON: counts and examples by finding. Spellings of one text count once.

    A text is unreadable, else alike (it has the tokens of another one), else spelled; too_long may be any of them. `lost` is the share of
    the first three, `worst` that of the most frequent finding, `unknown_tokens` the share of all tokens that are unknown; 0 of none.
    """
    every = distinct(texts)
    looked_at = every[:: -(-len(every) // MOST) or 1]
    pairs = list(zip(looked_at, read_texts(tokenizer, looked_at), strict=True))
    same: dict[tuple[int, ...], list[str]] = {}
    for text, reading in pairs:
        if not reading.unreadable:
            same.setdefault(reading.tokens, []).append(text)
    groups = [group for group in same.values() if len(group) > 1]
    found = {
        "unreadable": [text for text, reading in pairs if reading.unreadable],
        "alike": [text for group in groups for text in group],
        "spelled": [text for text, reading in pairs if reading.spelled and not reading.unreadable and len(same[reading.tokens]) == 1],
        "too_long": [text for text, reading in pairs if reading.cut],
    }
    examples = found | {"alike": [" = ".join(group[:2]) for group in groups]}
    unknown, words = sum(reading.unknown for _, reading in pairs), sum(reading.words for _, reading in pairs)
    return {
        "texts": len(every),
        "looked_at": len(looked_at),
        "lost": sum(len(found[name]) for name in ("unreadable", "alike", "spelled")) / max(1, len(looked_at)),
        "worst": max(map(len, found.values())) / max(1, len(looked_at)),
        "unknown_tokens": unknown / max(1, words),
        **{name: {"texts": len(of), "examples": examples[name][:EXAMPLES]} for name, of in found.items()},
    }


MEANING = {  # of a finding, after «12 of 40 captions»
    "unreadable": "cannot be read: the tokenizer knows no part of them, so they all have one embedding",
    "alike": "are read like another one, so the model cannot tell them apart",
    "spelled": "are read in pieces of characters: the text tower has hardly seen such a script",
    "too_long": "are longer than the text tower's context, so their end is cut off",
}


def in_words(what: str, found: dict[str, Any]) -> list[str]:
    """One sentence for each finding of `readability` that there is, with examples; `what` the texts are, in the plural."""
    said = []
    for name, meaning in MEANING.items():
        count, examples = found[name]["texts"], found[name]["examples"]
        shown = len(examples) * (2 if name == "alike" else 1)
        if count:
            said.append(f"{count} of {found['looked_at']} {what} {meaning} ({', '.join(examples)}{', …' if count > shown else ''}).")
    return said


@dataclass(frozen=True)
class _Vocabulary:
    """What both kinds of tokenizer are asked. `ids` gives every text's tokens, with start and end, none cut off."""

    ids: Callable[[Sequence[str]], Iterable[list[int]]]
    token: Callable[[int], str]
    context: int  # tokens
    unknown: int | None
    special: frozenset[int]
    of_bytes: bool  # its tokens are strings of bytes, each byte written as a character of BYTE_OF

    def kind(self, token: int) -> Kind:
        if token == self.unknown:
            return "unknown"
        spelled = self.token(token).removesuffix(END_OF_WORD)
        if token in self.special or not spelled.strip(BLANK):
            return "none"
        return "piece" if self._is_piece(spelled) else "word"

    def _is_piece(self, spelled: str) -> bool:
        if not self.of_bytes:
            return BYTE.fullmatch(spelled) is not None
        try:
            bytes(BYTE_OF[character] for character in spelled).decode()
        except UnicodeDecodeError:
            return True
        except KeyError:  # an added token, written as it is
            return False
        return False


def _byte_pairs(tokenizer: SimpleTokenizer) -> _Vocabulary:
    """Of open_clip's own tokenizer: every text has tokens, if need be of single bytes."""
    ends = [tokenizer.sot_token_id], [tokenizer.eot_token_id]
    return _Vocabulary(
        ids=lambda texts: ([*ends[0], *tokenizer.encode(text), *ends[1]] for text in texts),
        token=lambda number: tokenizer.decoder[number],
        context=tokenizer.context_length,
        unknown=None,
        special=frozenset(tokenizer.all_special_ids),
        of_bytes=True,
    )


def _hugging_face(tokenizer: HFTokenizer) -> _Vocabulary:
    inner = tokenizer.tokenizer
    others = {inner.bos_token_id, inner.eos_token_id, inner.pad_token_id, inner.cls_token_id, inner.sep_token_id}
    unknown = inner.unk_token_id if inner.unk_token_id not in others else None  # GPT-2's kind names one that it never gives

    def ids(texts: Sequence[str]) -> Iterable[list[int]]:
        found: list[list[int]] = inner([tokenizer.clean_fn(text) for text in texts], truncation=False, verbose=False)["input_ids"]
        return found

    return _Vocabulary(
        ids=ids,
        token=inner.convert_ids_to_tokens,
        context=tokenizer.context_length,
        unknown=unknown,
        special=frozenset(inner.all_special_ids) - {unknown},
        of_bytes="Ã©" in "".join(inner.tokenize("é")),  # the two bytes of é, each as a character
    )
