"""Both training stages on a tiny real corpus and a tiny open_clip model: what trains, what stays locked, what is written."""

import io
import re
import shutil
from itertools import count

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from assets import artifacts, embeddings
from assets.clip.model import WEIGHTS
from assets.clip.trainable import layer_groups
from assets.errors import UserError
from assets.image_tower.losses import sharded_arc_margin_loss
from assets.image_tower.stage import train_image_tower
from assets.params import Guards, ImageTower, PseudoCaptions, TextTower
from assets.pseudo_captions.stage import make_pseudo_captions
from assets.text_tower.stage import realign_text_tower
from tests.models import write_model

COLORS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220), "grey": (120, 120, 120)}


def png(color, seed):
    noise = np.random.default_rng(seed).normal(0, 20, (36, 36, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def sections(checkout):
    written = yaml.safe_load((checkout / "params.yaml").read_text(encoding="utf-8"))
    small = {"epochs": 2, "batch_size": 8, "device": "cpu"}
    return {
        "pseudo_captions": PseudoCaptions.model_validate(
            written["pseudo_captions"] | {"device": "cpu", "min_similarity": -1.0, "top_k": 1}
        ),
        "image_tower": ImageTower.model_validate(written["image_tower"] | small | {"trains": "all"}),
        "text_tower": TextTower.model_validate(written["text_tower"] | small),
    }


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = []
    for label, color in COLORS.items():
        for view in range(6):
            rows.append(
                {
                    "id": f"{label}/{view}",
                    "image": png(color, len(rows)),
                    "label": label,
                    "class_name": f"{label} square",
                    "captions": [label, "a colour"],
                    "source": "test",
                    "license": "CC0-1.0",
                    "attribution": "the tests",
                    "split": "validation" if view < 2 else "train",
                    "width": 36,
                    "height": 36,
                    "sha256": "0" * 64,
                }
            )
    rows.sort(key=lambda row: (artifacts.SPLITS.index(row["split"]), row["id"]))
    artifacts.CURATED.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=artifacts.CURATED_SCHEMA), artifacts.CURATED_IMAGES, row_group_size=5)
    write_model(artifacts.model_dir("base"))
    return tmp_path


def changed(before, after):
    """Names of the weights that differ between two model directories."""
    old, new = (load_file(artifacts.model_dir(recipe) / WEIGHTS) for recipe in (before, after))
    assert old.keys() == new.keys()
    return {name for name in old if not torch.equal(old[name], new[name])}


@pytest.mark.parametrize("recipe", ["gpr", "mcip"])
def test_each_stage_trains_its_tower_and_leaves_the_other_bit_equal(workspace, sections, recipe):
    make_pseudo_captions(sections["pseudo_captions"])
    train_image_tower(sections["image_tower"], recipe)
    tuned = changed("base", recipe)
    assert tuned
    assert all(name.startswith("visual.") for name in tuned)

    realign_text_tower(sections["text_tower"].model_copy(update={"trains": "all", "lr": 3e-5}), recipe)
    realigned = changed(recipe, f"{recipe}_rea")
    assert "token_embedding.weight" in realigned
    assert not any(name.startswith("visual.") for name in realigned)
    realign_text_tower(sections["text_tower"].model_copy(update={"trains": "projection"}), recipe)
    assert changed(recipe, f"{recipe}_rea") == {"text_projection", "logit_scale"}

    for name in (recipe, f"{recipe}_rea"):
        history = artifacts.read_json(artifacts.history_file(name))
        assert [row["epoch"] for row in history["rows"]] == [1, 2]
        card = artifacts.read_json(artifacts.model_dir(name) / "model_card.json")
        assert card["recipe"] == name
        assert set(card["inputs"]) == (
            {"curated_images", recipe}
            if name.endswith("rea")
            else {"curated_images", "base"} | ({"captions"} if recipe == "mcip" else set())
        )
        assert str(workspace) not in (artifacts.model_dir(name) / "model_card.json").read_text()
    assert not list((artifacts.WORK / "training").glob("*"))  # finished runs leave no state behind


def expected(model, tower, trains, unlocked_groups):
    """Names in the state of what may change: of parameters, and of the batch norms' statistics beside them."""
    *layers, projection = layer_groups(model, tower)
    if trains == "lora":
        linear = r"\.\d+\..*(in_proj_weight|(out_proj|c_fc|c_proj|qkv|proj|fc1|fc2|query|key|value|dense)\.weight)$"
        return {name for names in layers for name in names if re.search(linear, name)} | set(projection)
    chosen = {"projection": [], "last_groups": layers[-unlocked_groups:], "all": layers}[trains]
    names = {name for each in (*chosen, projection) for name in each}
    modules = {name.rpartition(".")[0] for name in names}
    return names | {name for name in model.state_dict() if name.rpartition(".")[0] in modules - {""}}


@pytest.mark.parametrize(
    ("kind", "image_trains", "text_trains"),
    [
        ("vit", "lora", "last_groups"),
        ("vit", "last_groups", "lora"),
        ("resnet", "last_groups", "all"),
        ("resnet", "projection", "projection"),
        ("sigmoid", "lora", "lora"),
        ("sigmoid", "all", "projection"),
        ("timm_and_hugging_face", "last_groups", "lora"),
        ("timm_and_hugging_face", "projection", "last_groups"),
        ("timm_and_hugging_face", "all", "projection"),
    ],
)
def test_what_is_locked_stays_bit_equal_and_what_trains_changes(kind, image_trains, text_trains, workspace, sections):
    shutil.rmtree(artifacts.model_dir("base"))
    model = write_model(artifacts.model_dir("base"), kind)
    unguarded = Guards.model_validate(dict.fromkeys(Guards.model_fields))  # random weights collapse easily, which is not the question
    settings = {"unlocked_groups": 1, "layer_decay": 0.5, "guards": unguarded}
    if kind == "vit":
        settings |= {"gradient_checkpointing": True, "ema_decay": 0.9, "precision": "bf16"}
    train_image_tower(sections["image_tower"].model_copy(update={"trains": image_trains, **settings}), "gpr")
    realign_text_tower(sections["text_tower"].model_copy(update={"trains": text_trains, **settings}), "gpr")
    scales = {name for name in ("logit_scale", "logit_bias") if name in model.state_dict()}
    for before, after, tower, trains, others in (
        ("base", "gpr", "image", image_trains, set()),
        ("gpr", "gpr_rea", "text", text_trains, scales),
    ):
        may_change = expected(model, tower, trains, 1) | others
        found = changed(before, after)
        assert found <= may_change
        # a bias of attention's keys has no gradient, nor has a row of rounding-error size any that shows
        assert len(found) > 0.8 * len(may_change), may_change - found
        assert set(layer_groups(model, tower)[-1]) <= found
        written = load_file(artifacts.model_dir(after) / WEIGHTS)
        model.load_state_dict(written, strict=True)
        if kind != "timm_and_hugging_face":  # plain open_clip looks a Hugging Face tower up by its name
            plain = open_clip.create_model(f"local-dir:{artifacts.model_dir(after)}", require_pretrained=True)
            assert all(torch.equal(value, written[name]) for name, value in plain.state_dict().items())


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(workspace, sections):
    make_pseudo_captions(sections["pseudo_captions"])
    weights = artifacts.model_dir("gpr") / WEIGHTS
    seen = []
    for seed in (0, 0, 1):
        train_image_tower(sections["image_tower"].model_copy(update={"seed": seed}), "gpr")
        seen.append(weights.read_bytes())
    assert seen[0] == seen[1]
    assert seen[0] != seen[2]


def test_pseudo_captions_tables(workspace, sections):
    make_pseudo_captions(sections["pseudo_captions"])
    captions = pq.read_table(artifacts.CAPTIONS).to_pylist()
    assert sorted(row["caption"] for row in captions) == sorted(["a colour", *COLORS, *(f"{color} square" for color in COLORS)])
    text = {row["caption_id"]: row["caption"] for row in captions}
    cluster = {row["caption_id"]: row["cluster"] for row in captions}
    images = pq.read_table(artifacts.IMAGE_CAPTIONS).to_pylist()
    assert len(images) == 16  # the training split
    for row in images:
        label = row["id"].split("/")[0]
        own, found = row["caption_ids"][:3], row["caption_ids"][3:]
        assert [text[number] for number in own] == [label, "a colour", f"{label} square"]
        assert len(found) <= 1
        assert all(cluster[number] not in {cluster[other] for other in own} for number in found)
        assert len(row["similarities"]) == len(row["caption_ids"])


def broken(settings):
    return settings.model_copy(update={"lr": 1000 * settings.lr})


def test_a_broken_learning_rate_of_the_image_tower_is_caught_in_the_first_epoch(workspace, sections):
    with pytest.raises(UserError, match=r" epoch 1\. The likely cause is a too high learning rate \(it is 0\.5\)"):
        train_image_tower(broken(sections["image_tower"]), "gpr")
    assert not artifacts.model_dir("gpr").exists()


@pytest.mark.parametrize(("trains", "lr"), [("projection", 3e-3), ("all", 3e-5)])
def test_a_broken_learning_rate_of_the_text_tower_is_caught_in_the_first_epoch(workspace, sections, trains, lr):
    shutil.copytree(artifacts.model_dir("base"), artifacts.model_dir("gpr"))
    settings = sections["text_tower"].model_copy(update={"trains": trains, "lr": lr})
    with pytest.raises(UserError, match=rf" epoch 1\. The likely cause is a too high learning rate \(it is {1000 * lr:.2g}\)"):
        realign_text_tower(broken(settings), "gpr")
    assert not artifacts.model_dir("gpr_rea").exists()


def test_settling_batch_norms_stop_no_run(workspace, sections):
    shutil.rmtree(artifacts.model_dir("base"))
    write_model(artifacts.model_dir("base"), "timm_and_hugging_face")  # its statistics are those of no picture
    limits = sections["image_tower"].guards.model_copy(update={"min_spread": None})  # random weights tell no pictures apart
    settings = sections["image_tower"].model_copy(update={"epochs": 4, "lr": 1e-12, "guards": limits})
    train_image_tower(settings, "gpr")
    cosines = [row["validation_cosine_to_start"] for row in artifacts.read_json(artifacts.history_file("gpr"))["rows"]]
    assert min(cosines) < limits.min_cosine_to_start, "the statistics did not move the embeddings, so this shows nothing"


@pytest.mark.parametrize("own", [{"ema_decay": 0.5}, {"sampled_classes": 2}], ids=str)
def test_a_stage_killed_at_any_step_ends_with_the_same_weights(workspace, sections, monkeypatch, own):
    settings = sections["image_tower"].model_copy(update={"checkpoint_minutes": 0.0, "batch_size": 4} | own)
    train_image_tower(settings, "gpr")
    whole = (artifacts.model_dir("gpr") / WEIGHTS).read_bytes()
    encoded, real = [], embeddings.encode_images
    monkeypatch.setattr(embeddings, "encode_images", lambda *given, **named: encoded.append(1) or real(*given, **named))
    steps = count(1)

    def dies(*arguments, **named):
        if next(steps) % 3 == 0:  # eight steps, and two more are done before each death
            raise KeyboardInterrupt
        return sharded_arc_margin_loss(*arguments, **named)

    monkeypatch.setattr("assets.image_tower.stage.sharded_arc_margin_loss", dies)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            train_image_tower(settings, "gpr")
    train_image_tower(settings, "gpr")
    assert (artifacts.model_dir("gpr") / WEIGHTS).read_bytes() == whole
    assert not encoded  # the base's embeddings were still there


def test_several_views_of_each_picture(workspace, sections):
    shutil.copytree(artifacts.model_dir("base"), artifacts.model_dir("gpr"))
    weights = []
    for views in (1, 3, 3):
        realign_text_tower(sections["text_tower"].model_copy(update={"views": views}), "gpr")
        weights.append((artifacts.model_dir("gpr_rea") / WEIGHTS).read_bytes())
    assert weights[1] == weights[2] != weights[0]


@pytest.mark.parametrize("setting", ["gradient_checkpointing", "compile"])
def test_a_projection_has_no_use_for_what_is_for_towers(workspace, sections, setting):
    shutil.copytree(artifacts.model_dir("base"), artifacts.model_dir("gpr"))
    with pytest.raises(UserError, match="trains: all"):
        realign_text_tower(sections["text_tower"].model_copy(update={setting: True}), "gpr")


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate": 2, "batch_size": 4, "ema_decay": 0.9, "gradient_checkpointing": True},
        {"precision": "bf16", "patch_dropout": 0.5, "images_per_class": 2},
    ],
)
def test_the_image_tower_trains_with_every_option(workspace, sections, options):
    make_pseudo_captions(sections["pseudo_captions"])
    train_image_tower(sections["image_tower"].model_copy(update=options), "mcip")
    assert all(name.startswith("visual.") for name in changed("base", "mcip"))
    rows = artifacts.read_json(artifacts.history_file("mcip"))["rows"]
    assert all(-1 <= row["validation_cosine_to_start"] < 1 and 0 < row["validation_spread"] < 1 for row in rows)
