"""What a profile costs, against hand-computed values; every profile validates and its model is built."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from assets.params import read_params
from assets.profiles.__main__ import FOLDER, main
from assets.profiles.cost import training_cost

PROFILES = {"demo", "siglip_so400m", "vit_b_32", "vit_l_14_336"}


def test_the_profiles(checkout: Path):
    assert {path.stem for path in FOLDER.glob("*.yaml")} == PROFILES


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_profile_is_complete_and_right(name: str, checkout: Path):
    params, written = read_params(FOLDER / f"{name}.yaml")
    assert written.keys() == type(params).model_fields.keys()
    assert f"cp assets/profiles/{name}.yaml params.yaml" in (FOLDER / f"{name}.yaml").read_text() or name == "demo"


def test_the_demo_s_profile_is_what_is_committed(checkout: Path):
    assert (FOLDER / "demo.yaml").read_bytes() == (checkout / "params.yaml").read_bytes()


def test_the_paper_s_settings():
    params, _ = read_params(FOLDER / "vit_l_14_336.yaml")
    image, text = params.image_tower, params.text_tower
    assert params.base_clip.model_dump() == {"source": "open_clip", "model": "ViT-L-14-336", "pretrained": "openai"}
    assert (image.lr, image.class_centers_lr, image.weight_decay, image.batch_size, image.epochs) == (1e-6, 1e-4, 1e-2, 128, 3)
    assert image.lr * image.final_lr_fraction == pytest.approx(1e-7)
    assert (image.scale, image.margin, image.caption_weight, image.gradient_clip_norm) == (30, 0.1, 0.25, 1)
    assert image.gradient_checkpointing
    assert image.trains == text.trains == "all"
    assert (text.lr, text.batch_size) == (1e-5, 32768)
    assert (params.pseudo_captions.top_k, params.pseudo_captions.min_similarity) == (20, 0.27)


def test_the_command_builds_every_model(capsys: pytest.CaptureFixture[str]):
    assert main() == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert {(row[0], row[1]) for row in shown} == {(name, stage) for name in PROFILES for stage in ("image_tower", "text_tower")}
    by_name = {(row[0], row[1]): row for row in shown}
    # 304.3 M parameters; forward 382 GFLOP a picture (two a multiply-add), backward twice that, the forward pass again; 128 pictures
    assert by_name["vit_l_14_336", "image_tower"][3] == "304.3"
    assert float(by_name["vit_l_14_336", "image_tower"][7]) == pytest.approx(4 * 0.382 * 128, rel=0.01)


def test_costs_by_hand():
    """One layer of 8 to 4 that is locked, one of 4 to 2 that trains, for 3 inputs of which 6 make a step."""
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Linear(4, 2))
        pixels = torch.zeros(3, 8)
    model[0].requires_grad_(False)

    def cost(**changes):
        options = {"batch_size": 6, "inputs": 3, "half": False, "checkpointing": False, "ema": False}
        return training_cost(model, lambda: model(pixels), **options | changes)

    assert (cost().trained, cost().locked) == (4 * 2 + 2, 8 * 4 + 4)
    assert cost().state_bytes == 4 * (36 + 10) + 10 * 4 + 10 * 8
    assert cost(ema=True).state_bytes == cost().state_bytes + 10 * 4
    assert cost().activation_bytes == 6 * 4 * 4  # what the second layer took in
    assert cost(half=True).activation_bytes == 6 * 4 * 2
    forward, backward = 2 * 6 * (8 * 4 + 4 * 2), 2 * 6 * 4 * 2  # of the second layer's weight
    assert cost().step_flops == forward + backward
