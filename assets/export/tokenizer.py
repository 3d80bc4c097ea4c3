"""A model's tokenizer as one file of the library `tokenizers`, and what its readers must know besides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

from assets import artifacts
from assets.clip.model import Tokenizer
from assets.clip.onnx_towers import CLEANING, TOKENIZER, TOKENIZER_CONFIG
from assets.errors import UserError

WORDS = r"""<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""  # open_clip's pattern


def write_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """UserError for a tokenizer that has no such form."""
    clean = tokenizer.clean_fn.__name__.removeprefix("_clean_")  # type: ignore[attr-defined]
    if clean not in CLEANING:
        raise UserError(f"the tokenizer cleans texts by {clean}, which has no form without torch.")
    if isinstance(tokenizer, SimpleTokenizer):
        inner, described = _byte_pairs(tokenizer)
    elif isinstance(tokenizer, HFTokenizer):
        inner, described = _hugging_face(tokenizer)
    else:
        raise UserError(f"the tokenizer {type(tokenizer).__name__} has no form without torch.")
    inner.no_truncation()
    inner.no_padding()
    inner.save(str(directory / TOKENIZER))
    common = {"model_max_length": tokenizer.context_length, "clean": clean}
    artifacts.write_json(directory / TOKENIZER_CONFIG, common | described)


def _byte_pairs(tokenizer: SimpleTokenizer) -> tuple[Any, dict[str, Any]]:
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers import Tokenizer as Inner

    if tokenizer.reduction_fn is not None:
        raise UserError("the tokenizer shortens long texts at random, which has no form without torch.")
    start, end = (tokenizer.decoder[number] for number in (tokenizer.sot_token_id, tokenizer.eot_token_id))
    merges = sorted(tokenizer.bpe_ranks, key=lambda pair: tokenizer.bpe_ranks[pair])
    inner = Inner(models.BPE(tokenizer.encoder, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=end))
    inner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    words = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
    inner.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    inner.decoder = decoders.ByteLevel()
    ends = (end, tokenizer.eot_token_id), (start, tokenizer.sot_token_id)
    inner.post_processor = processors.RobertaProcessing(*ends, trim_offsets=False, add_prefix_space=False)
    inner.add_special_tokens([AddedToken(start, special=True), AddedToken(end, special=True)])
    return inner, {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": start,
        "eos_token": end,
        "unk_token": end,
        "pad_token": tokenizer.decoder[0],  # open_clip fills up with zeros
        "pad_token_id": 0,
        "unknown_token_id": None,
        "special_token_ids": sorted(tokenizer.all_special_ids),
        "of_bytes": True,
    }


def _hugging_face(tokenizer: HFTokenizer) -> tuple[Any, dict[str, Any]]:
    inner = tokenizer.tokenizer
    backend = getattr(inner, "backend_tokenizer", None)
    if backend is None or tokenizer.strip_sep_token or tokenizer.tokenizer_mode:
        raise UserError(f"the tokenizer {type(inner).__name__} has no form without torch.")
    others = {inner.bos_token_id, inner.eos_token_id, inner.pad_token_id, inner.cls_token_id, inner.sep_token_id}
    unknown = inner.unk_token_id if inner.unk_token_id not in others else None  # GPT-2's kind names one that it never gives
    named = {name: str(value) for name, value in inner.special_tokens_map.items() if isinstance(value, str)}
    copied = type(backend).from_str(backend.to_str())
    return copied, named | {
        "tokenizer_class": type(inner).__name__.removesuffix("Fast"),
        "pad_token": inner.pad_token,
        "pad_token_id": inner.pad_token_id,
        "unknown_token_id": unknown,
        "special_token_ids": sorted(set(inner.all_special_ids) - {unknown}),
        "of_bytes": "Ã©" in "".join(inner.tokenize("é")),  # the two bytes of é, each as a character
    }
