"""Tiny models of every kind of tower that open_clip builds, with random weights, for the tests of all packages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VIT = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "patch_size": None}
BATCH_NORM = {"image_size": 32, "timm_model_name": "test_efficientnet", "timm_pool": "avg", "timm_proj": "linear"}
HUGGING_FACE = {
    "context_length": 16,
    "hf_model_name": "tiny-bert",
    "hf_model_pretrained": False,
    "hf_tokenizer_name": "tiny-bert",
    "hf_pooler_type": "mean_pooler",
    "hf_proj_type": "linear",
}
# SigLIP's text tower without its tokenizer, which only a hub has: it sees its padding, and reads its result at the last token
SEES_PADDING = TEXT | {"context_length": 16, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}

CONFIGS: dict[str, dict[str, Any]] = {
    "vit": {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": TEXT},
    "resnet": {"embed_dim": 16, "vision_cfg": RESNET, "text_cfg": TEXT},
    "custom_text": {"embed_dim": 16, "custom_text": True, "vision_cfg": VIT, "text_cfg": TEXT},
    "sigmoid": {
        "embed_dim": 64,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
        "text_cfg": SEES_PADDING,
    },
    "timm_and_hugging_face": {"embed_dim": 16, "vision_cfg": BATCH_NORM, "text_cfg": HUGGING_FACE},
}
PREPROCESSING = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
WORDS = ["a", "an", "the", "colour", "red", "green", "blue", "grey", "square", "dog", "heart", "in", "park", "##s"]


def write_model(directory: Path, kind: str = "vit", seed: int = 0) -> Any:
    """A model directory of the kind, as the stage base_clip leaves it; returns the model, in eval mode."""
    import open_clip
    import torch

    from assets import artifacts
    from assets.clip.model import CONFIG, load_clip, save_weights

    config = CONFIGS[kind]
    directory.mkdir(parents=True)
    written = {"model_cfg": config, "preprocess_cfg": PREPROCESSING}
    (directory / CONFIG).write_text(json.dumps(written), encoding="utf-8")
    card = {"recipe": "base", "stage": "base_clip", "made_from": [], "params": {"kind": kind}, "inputs": {}, "validation": {}}
    artifacts.write_json(directory / artifacts.MODEL_CARD, card)
    if "hf_model_name" in config["text_cfg"]:
        write_bert(directory)
        config = config | {"text_cfg": config["text_cfg"] | {"hf_model_name": str(directory)}}
    torch.manual_seed(seed)
    custom = config.get("custom_text") or "hf_model_name" in config["text_cfg"]
    arguments = {name: value for name, value in config.items() if name != "custom_text"}
    save_weights((open_clip.CustomTextCLIP if custom else open_clip.model.CLIP)(**arguments), directory)
    return load_clip(directory)[0]


def make_blind_to_black(directory: Path) -> None:
    """Change a "vit" so that black pictures get a zero embedding, as from a trunk that ends in a ReLU: no layer adds anything to zeros."""
    from safetensors.torch import load_file, save_file

    from assets.clip.model import CONFIG, WEIGHTS

    config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    config["preprocess_cfg"]["mean"] = [0.0, 0.0, 0.0]
    (directory / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    state = load_file(directory / WEIGHTS)
    for name, tensor in state.items():
        if name.startswith("visual.") and name.endswith(("bias", "_embedding")):
            tensor.zero_()
    save_file(state, directory / WEIGHTS)


def write_bert(directory: Path) -> None:
    """Configuration and tokenizer of a tiny BERT."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2, "max_position_embeddings": 16}
    config = {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": len(vocabulary), "pad_token_id": 0, **sizes}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}), encoding="utf-8")
