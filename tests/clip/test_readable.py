"""What each kind of tokenizer reads: the demo's WordPiece, open_clip's byte pairs, and small ones built like SigLIP's and RoBERTa's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from assets.base_clip.demo import CONTEXT_LENGTH, TEXT_PACKAGE, _package_folder
from assets.clip import readable
from assets.clip.readable import in_words, read_texts, readability

# the class folders of a user whose names all had one and the same vector
SCRIPTS = ["猫", "狗", "鸟", "鱼", "แมว", "สุนัข", "😀", "🚗", "虎", "龙"]


@pytest.fixture(scope="module")
def word_piece() -> HFTokenizer:
    return HFTokenizer(str(_package_folder(TEXT_PACKAGE) / "model"), context_length=CONTEXT_LENGTH)


@pytest.fixture(scope="module")
def byte_pairs() -> SimpleTokenizer:
    return SimpleTokenizer()


def saved(folder: Path, tokenizer: Tokenizer, **special: str) -> str:
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **special}), encoding="utf-8")
    return str(folder)


def ending(tokenizer: Tokenizer, end: str) -> Tokenizer:
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))])
    return tokenizer


@pytest.fixture
def unigram(tmp_path: Path) -> HFTokenizer:
    """As SigLIP's: T5's kind with <unk>, which reads an unknown word as a bare space and one unknown token, after cleaning."""
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁red", -3.0), ("▁heart", -3.0), ("s", -4.0)]
    inner = Tokenizer(models.Unigram(words, unk_id=2))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    folder = saved(tmp_path, ending(inner, "</s>"), pad_token="</s>", eos_token="</s>", unk_token="<unk>")
    return HFTokenizer(folder, context_length=8, clean="canonicalize")


@pytest.fixture
def byte_fallback(tmp_path: Path) -> HFTokenizer:
    """As SigLIP 2's: Gemma's kind, which spells what it does not know in bytes and never gives <unk>."""
    vocabulary = ["<pad>", "<eos>", "<unk>", "▁", "red", *(f"<0x{byte:02X}>" for byte in range(256))]
    numbers = {token: number for number, token in enumerate(vocabulary)}
    inner = Tokenizer(models.BPE(numbers, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    folder = saved(tmp_path, ending(inner, "<eos>"), pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    return HFTokenizer(folder, context_length=64)


@pytest.fixture
def byte_level(tmp_path: Path) -> HFTokenizer:
    """As RoBERTa's: GPT-2's kind, whose tokens are bytes written as characters, and whose unknown token is its end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    numbers = {token: number for number, token in enumerate(["<end>", *alphabet, "Ã©"])}
    inner = Tokenizer(models.BPE(numbers, [("Ã", "©")]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    folder = saved(tmp_path, ending(inner, "<end>"), pad_token="<end>", eos_token="<end>", unk_token="<end>")
    return HFTokenizer(folder, context_length=16)


def test_words_that_the_demo_cannot_read_are_unreadable(word_piece):
    found = readability(word_piece, SCRIPTS)
    assert (found["unreadable"]["texts"], found["unknown_tokens"], found["lost"]) == (10, 1.0, 1.0)
    (said,) = in_words("class names", found)
    assert said == (
        "10 of 10 class names cannot be read: the tokenizer knows no part of them, so they all have one embedding (猫, 狗, 鸟, 鱼, แมว, …)."
    )


def test_a_word_of_a_hundred_letters_is_unknown_as_well(word_piece):
    assert [each.unreadable for each in read_texts(word_piece, ["x" * 120, "xxx", "日本", "a 猫"])] == [True, False, False, False]


def test_texts_that_differ_and_read_the_same_are_alike(word_piece):
    """A letter's accent, or an unknown part; not its case, which makes no other text."""
    found = readability(word_piece, ["piña", "pina", "cat 猫", "cat 狗", "Red heart", "red  heart", "猫", "狗"])
    assert found["alike"] == {"texts": 4, "examples": ["piña = pina", "cat 猫 = cat 狗"]}
    assert found["unreadable"]["texts"] == 2, "they are not counted twice"
    assert found["lost"] == 6 / 7
    assert "4 of 7 captions are read like another one" in " ".join(in_words("captions", found))


@pytest.mark.parametrize("kind", ["word_piece", "byte_pairs"])
def test_what_is_longer_than_the_context_is_cut_as_the_tokenizer_itself_does(kind, request):
    tokenizer = request.getfixturevalue(kind)
    fits, too_long = ("cat " * (tokenizer.context_length - ends) for ends in (2, 1))
    found = readability(tokenizer, [fits, too_long, f"{too_long} dog"])
    assert found["too_long"]["texts"] == 2
    assert found["alike"]["texts"] == 3, "cut off, they are the same"
    for text, tokens, reading in zip((fits, too_long), tokenizer([fits, too_long]), read_texts(tokenizer, [fits, too_long]), strict=True):
        assert reading.words == len(text.split())
        assert list(reading.tokens) == tokens.tolist()


def test_byte_pairs_read_every_text_but_a_foreign_script_in_pieces(byte_pairs):
    """CLIP's tokenizer has no unknown token: that alone would call any class name readable."""
    found = readability(byte_pairs, [*SCRIPTS, "red heart", "café", "flag: Åland Islands"])
    assert found["unknown_tokens"] == found["unreadable"]["texts"] == 0
    assert found["spelled"]["texts"] == 7
    assert set(found["spelled"]["examples"]) <= set(SCRIPTS) - {"😀", "🚗"}, "common emoji have tokens of their own"


def test_sentencepiece_s_bare_space_before_an_unknown_token_says_nothing(unigram):
    texts = ["red heart", "猫", "狗", "red 猫", "red 狗", "!!!", "red heart!"]
    assert [each.unreadable for each in read_texts(unigram, texts)] == [False, True, True, False, False, True, False]
    found = readability(unigram, texts)
    assert found["unreadable"] == {"texts": 3, "examples": ["猫", "狗", "!!!"]}, "its cleaning leaves nothing of punctuation"
    assert found["alike"]["examples"] == ["red heart = red heart!", "red 猫 = red 狗"]


def test_bytes_that_stand_for_unknown_characters_are_pieces(byte_fallback):
    found = readability(byte_fallback, ["red", "red red", "猫", "狗"])
    assert found["unreadable"]["texts"] == found["alike"]["texts"] == 0
    assert found["spelled"]["examples"] == ["猫", "狗"]


def test_tokens_of_bytes_are_pieces_where_they_make_no_character(byte_level):
    """Its unknown token is its end, which every text has."""
    assert [(each.words, each.unknown, each.pieces) for each in read_texts(byte_level, ["é", "cat", "è"])] == [
        (1, 0, 0),
        (3, 0, 0),
        (2, 0, 2),
    ]


def test_nothing_to_read_is_nothing_wrong(word_piece):
    found = readability(word_piece, [])
    assert (found["texts"], found["lost"], found["unknown_tokens"]) == (0, 0.0, 0.0)
    assert in_words("captions", found) == []


def test_of_very_many_texts_some_are_looked_at(byte_pairs, monkeypatch):
    monkeypatch.setattr(readable, "MOST", 10)
    found = readability(byte_pairs, [f"picture {number}" for number in range(25)])
    assert (found["texts"], found["looked_at"]) == (25, 9)
