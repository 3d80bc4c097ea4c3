"""Both training stages on a tiny real corpus and a tiny open_clip model: what trains, what stays locked, what is written."""

import math
import re
import shutil
from itertools import count

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize

from assets import artifacts
from assets.clip import encoder
from assets.clip.encoder import Encoder
from assets.clip.model import WEIGHTS, save_weights
from assets.clip.trainable import layer_groups
from assets.errors import UserError
from assets.image_tower.losses import sharded_arc_margin_loss
from assets.image_tower.stage import train_image_tower
from assets.params import Guards, ImageTower, TextTower, Training
from assets.pictures.table import read_rows
from assets.text_tower.stage import realign_text_tower
from assets.training import validation
from tests.models import write_model
from tests.settings import demo_settings
from tests.training.tables import realigned, tuned, write_colors, write_training_captions

COLORS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220), "grey": (120, 120, 120)}
TRAINING = Training(processes=1, compile=False, checkpoint_minutes=60.0)


@pytest.fixture(scope="module")
def sections(checkout):
    written = demo_settings()
    small = {"steps": 1, "epochs": 2, "batch_size": 8, "max_batch_share": 1.0, "min_validation_pictures": 1, "device": "cpu"}
    return {
        "image_tower": ImageTower.model_validate(written["image_tower"] | small | {"trains": "all", "batch_norm_from": 1}),
        "text_tower": TextTower.model_validate(written["text_tower"] | small),
    }


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_colors(COLORS)
    write_model(artifacts.model_dir("base"))
    return tmp_path


@pytest.fixture
def rising(monkeypatch):
    """Every validation is better than the one before, so that the end of the training is kept whatever it is worth."""
    scores = count()
    monkeypatch.setattr(validation, "measures", lambda *given: {"search": float(next(scores))})


def changed(before, after):
    """Names of the weights that differ between two model directories."""
    old, new = (load_file(artifacts.model_dir(recipe) / WEIGHTS) for recipe in (before, after))
    assert old.keys() == new.keys()
    return {name for name in old if not torch.equal(old[name], new[name])}


@pytest.mark.parametrize("caption_weight", [0.0, 0.25, 1.0])
def test_each_stage_trains_its_tower_and_leaves_the_other_bit_equal(workspace, sections, caption_weight):
    """Under names and from starts of one's own: nothing hangs on a recipe's name."""
    if caption_weight:
        write_training_captions("wide")
    train_image_tower(tuned("wide", sections["image_tower"], caption_weight=caption_weight), TRAINING)
    found = changed("base", "wide")
    assert found
    assert all(name.startswith("visual.") for name in found)

    realign_text_tower(realigned("follows", sections["text_tower"], "wide", trains="all", lr=3e-5), TRAINING)
    found = changed("wide", "follows")
    assert "token_embedding.weight" in found
    assert not any(name.startswith("visual.") for name in found)
    realign_text_tower(realigned("follows", sections["text_tower"], "wide", trains="projection"), TRAINING)
    assert changed("wide", "follows") == {"text_projection", "logit_scale"}
    train_image_tower(tuned("again", sections["image_tower"], "follows", epochs=1), TRAINING)

    inputs = {"wide": {"curated_images", "base"} | ({"training_captions"} if caption_weight else set())}
    inputs |= {"follows": {"curated_images", "wide"}, "again": {"curated_images", "follows"}}
    stages = {"wide": "image_tower", "follows": "text_tower", "again": "image_tower"}
    made_from = [("base", "base_clip")]
    for name in ("wide", "follows", "again"):
        history = artifacts.read_json(artifacts.history_file(name))
        assert [row["epoch"] for row in history["rows"]] == ([0, 1] if name == "again" else [0, 1, 2])
        card = artifacts.read_json(artifacts.model_dir(name) / artifacts.MODEL_CARD)
        assert (card["recipe"], card["stage"], set(card["inputs"])) == (name, stages[name], inputs[name])
        assert [(each["recipe"], each["stage"]) for each in card["made_from"]] == made_from
        assert card["made_from"][0]["params"] == {"kind": "vit"}
        made_from.append((name, stages[name]))
        assert str(workspace) not in (artifacts.model_dir(name) / artifacts.MODEL_CARD).read_text()
    assert card["made_from"][1]["params"]["caption_weight"] == caption_weight
    assert not list((artifacts.WORK / "training").glob("*"))  # finished runs leave no state behind


def test_captions_do_not_matter_to_a_recipe_without_a_caption_weight(workspace, sections):
    written = []
    for with_captions in (False, True):
        if with_captions:
            write_training_captions("labels")
        train_image_tower(tuned("labels", sections["image_tower"]), TRAINING)
        written.append((artifacts.model_dir("labels") / WEIGHTS).read_bytes())
    assert written[0] == written[1]


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
def test_what_is_locked_stays_bit_equal_and_what_trains_changes(kind, image_trains, text_trains, workspace, sections, rising):
    shutil.rmtree(artifacts.model_dir("base"))
    model = write_model(artifacts.model_dir("base"), kind)
    unguarded = Guards.model_validate(dict.fromkeys(Guards.model_fields))  # random weights collapse easily, which is not the question
    settings = {"unlocked_groups": 1, "layer_decay": 0.5, "guards": unguarded}
    if kind == "vit":
        settings |= {"gradient_checkpointing": True, "ema_decay": 0.9, "precision": "bf16"}
    train_image_tower(tuned("gpr", sections["image_tower"], trains=image_trains, **settings), TRAINING)
    realign_text_tower(realigned("gpr_rea", sections["text_tower"], "gpr", trains=text_trains, **settings), TRAINING)
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
    weights = artifacts.model_dir("gpr") / WEIGHTS
    seen = []
    for seed in (0, 0, 1):
        train_image_tower(tuned("gpr", sections["image_tower"], seed=seed), TRAINING)
        seen.append(weights.read_bytes())
    assert seen[0] == seen[1]
    assert seen[0] != seen[2]


def test_a_broken_learning_rate_of_the_image_tower_is_caught_in_the_first_epoch(workspace, sections):
    with pytest.raises(UserError, match=r" epoch 1\. The likely cause is a too high learning rate \(it is 5\)"):
        train_image_tower(tuned("gpr", sections["image_tower"], lr=10000 * sections["image_tower"].lr), TRAINING)
    assert not artifacts.model_dir("gpr").exists()


@pytest.mark.parametrize(("trains", "lr"), [("projection", 3e-3), ("all", 3e-5)])
def test_a_broken_learning_rate_of_the_text_tower_is_caught_in_the_first_epoch(workspace, sections, trains, lr):
    with pytest.raises(UserError, match=rf" epoch 1\. The likely cause is a too high learning rate \(it is {1000 * lr:.2g}\)"):
        realign_text_tower(realigned("base_rea", sections["text_tower"], "base", trains=trains, lr=1000 * lr), TRAINING)
    assert not artifacts.model_dir("base_rea").exists()


def test_settling_batch_norms_stop_no_run(workspace, sections):
    shutil.rmtree(artifacts.model_dir("base"))
    write_model(artifacts.model_dir("base"), "timm_and_hugging_face")  # its statistics are those of no picture
    limits = sections["image_tower"].guards.model_copy(update={"min_spread": None})  # random weights tell no pictures apart
    train_image_tower(tuned("gpr", sections["image_tower"], epochs=4, lr=1e-12, guards=limits, batch_norm_from=8), TRAINING)
    cosines = [row["validation_cosine_to_start"] for row in artifacts.read_json(artifacts.history_file("gpr"))["rows"]]
    assert min(cosines) < limits.min_cosine_to_start, "the statistics did not move the embeddings, so this shows nothing"


@pytest.mark.parametrize("own", [{"ema_decay": 0.5}, {"sampled_classes": 2}], ids=str)
def test_a_stage_killed_at_any_step_ends_with_the_same_weights(workspace, sections, monkeypatch, own):
    recipe, training = tuned("gpr", sections["image_tower"], batch_size=4, **own), TRAINING.model_copy(update={"checkpoint_minutes": 0.0})
    train_image_tower(recipe, training)
    whole = (artifacts.model_dir("gpr") / WEIGHTS).read_bytes()
    made, real = [], encoder.kept_rows
    monkeypatch.setattr(encoder, "kept_rows", lambda *given: real(*given[:-1], lambda rows: made.append(1) or given[-1](rows)))
    steps = count(1)

    def dies(*arguments, **named):
        if next(steps) % 3 == 0:  # eight steps, and two more are done before each death
            raise KeyboardInterrupt
        return sharded_arc_margin_loss(*arguments, **named)

    monkeypatch.setattr("assets.image_tower.stage.sharded_arc_margin_loss", dies)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            train_image_tower(recipe, training)
    train_image_tower(recipe, training)
    assert (artifacts.model_dir("gpr") / WEIGHTS).read_bytes() == whole
    assert not made  # the base's embeddings were still there


def test_several_views_of_each_picture(workspace, sections):
    weights = []
    for views in (1, 3, 3):
        realign_text_tower(realigned("base_rea", sections["text_tower"], "base", views=views), TRAINING)
        weights.append((artifacts.model_dir("base_rea") / WEIGHTS).read_bytes())
    assert weights[1] == weights[2] != weights[0]


@pytest.mark.parametrize(("trains", "lr"), [("projection", 3e-3), ("all", 3e-4)])
def test_texts_keep_how_they_lie_to_each_other(workspace, sections, trains, lr):
    """By the same training with and without the weight: how far the names' cosines move from those of the start's locked layers."""
    kept = []
    names = sorted(set(read_rows(artifacts.CURATED_IMAGES, "train")["class_name"].to_pylist()))
    for weight in (0.0, 100.0):
        own = {"trains": trains, "lr": lr, "steps": 20, "keep": 1.0, "relation_weight": weight}
        realign_text_tower(realigned("base_rea", sections["text_tower"], "base", **own), TRAINING)
        before = normalize(torch.tensor(Encoder(artifacts.model_dir("base"), device="cpu", precision="fp32").text_features(names)), dim=1)
        after = torch.tensor(Encoder(artifacts.model_dir("base_rea"), device="cpu", precision="fp32").texts_now(names))
        kept.append(float((before @ before.T - after @ after.T).abs().mean()))
    assert kept[1] < 0.8 * kept[0]


@pytest.mark.parametrize("loss", ["base", "info_nce"])
def test_a_sigmoid_base_realigns_by_its_own_loss_or_by_info_nce(loss, workspace, sections, rising):
    """InfoNCE knows no bias and bounds the scale; a scale that starts above the bound must not be stuck there."""
    shutil.rmtree(artifacts.model_dir("base"))
    model = write_model(artifacts.model_dir("base"), "sigmoid")
    with torch.no_grad():
        model.logit_scale.fill_(math.log(112))
    save_weights(model, artifacts.model_dir("base"))
    realign_text_tower(realigned("base_rea", sections["text_tower"], "base", loss=loss, way_back=[]), TRAINING)
    scales = {"logit_scale", "logit_bias"}
    assert changed("base", "base_rea") & scales == (scales if loss == "base" else {"logit_scale"})
    scale = float(load_file(artifacts.model_dir("base_rea") / WEIGHTS)["logit_scale"].exp())
    if loss == "base":
        assert scale == pytest.approx(112, rel=0.05)  # the sigmoid loss has no bound
    else:
        assert scale < 100, "at the bound the scale had no gradient"


def test_a_projection_has_no_activations_to_compute_again(workspace, sections):
    with pytest.raises(UserError, match="trains: all"):
        realign_text_tower(realigned("base_rea", sections["text_tower"], "base", gradient_checkpointing=True), TRAINING)


def test_compile_has_no_effect_on_a_projection(workspace, sections, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *given, **named: pytest.fail("there is no tower to compile"))
    realign_text_tower(realigned("base_rea", sections["text_tower"], "base"), TRAINING.model_copy(update={"compile": True}))


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate": 2, "batch_size": 4, "ema_decay": 0.9, "gradient_checkpointing": True},
        {"precision": "bf16", "patch_dropout": 0.5, "images_per_class": 2},
    ],
)
def test_the_image_tower_trains_with_every_option(workspace, sections, options):
    write_training_captions("mcip")
    train_image_tower(tuned("mcip", sections["image_tower"], caption_weight=0.25, **options), TRAINING)
    assert all(name.startswith("visual.") for name in changed("base", "mcip"))
    rows = artifacts.read_json(artifacts.history_file("mcip"))["rows"][1:]
    assert all(-1 <= row["validation_cosine_to_start"] < 1 and 0 < row["validation_spread"] < 1 for row in rows)


@pytest.mark.parametrize("trains", ["all", "lora"])
def test_what_is_kept_is_never_worse_than_the_start_and_the_way_back_is_tried(tmp_path, monkeypatch, sections, trains, caplog):
    """With enough validation pictures to choose by; of a model with adapters, the way begins at the weights without them."""
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    write_colors({f"colour{number}": (15 * number, 255 - 15 * number, 97 * number % 255) for number in range(16)})
    write_model(artifacts.model_dir("base"))
    unguarded = Guards.model_validate(dict.fromkeys(Guards.model_fields))
    train_image_tower(tuned("gpr", sections["image_tower"], trains=trains, guards=unguarded, way_back=[0.1, 0.6]), TRAINING)
    realign_text_tower(realigned("gpr_rea", sections["text_tower"], "gpr", guards=unguarded), TRAINING)
    for name, shares in (("gpr", [0.1, 0.6]), ("gpr_rea", [0.25, 0.5, 0.75])):
        history = artifacts.read_json(artifacts.history_file(name))
        kept = history["kept"]
        assert kept == artifacts.read_json(artifacts.model_dir(name) / artifacts.MODEL_CARD)["kept"]
        assert kept["measures"]["validation_search"] >= max(row["validation_search"] for row in history["rows"])
        assert [point["share"] for point in kept["way_back"]] == shares
        assert f"kept {kept['said']}" in caplog.text
        # what was written measures what the card says
        loaded = encoder.Encoder(artifacts.model_dir(name), device="cpu", precision="fp32")
        held_out = validation.read_validation_set(artifacts.CURATED_IMAGES)
        found = validation.measures(held_out, loaded.images_now(held_out.pictures), loaded.texts_now(held_out.names))
        assert found["search"] == pytest.approx(kept["measures"]["validation_search"], abs=1e-3)


def test_a_handful_of_validation_pictures_keeps_the_start_and_says_so(workspace, sections):
    """Twelve validation pictures kept epoch 1 of ten, six of six, as «the best by validation»."""
    train_image_tower(tuned("gpr", sections["image_tower"], epochs=3, min_validation_pictures=30), TRAINING)
    assert changed("base", "gpr") == set()
    kept = artifacts.read_json(artifacts.history_file("gpr"))["kept"]
    assert (kept["epoch"], kept["share"], kept["way_back"]) == (0, 1.0, [])
    assert "8 validation pictures are too few to choose by" in kept["said"]


def test_a_recipe_may_ask_for_a_share_of_what_training_changed(workspace, sections):
    """The sweep's rows name the point that they measure; validation by eight pictures, which keeps the start, has no say in it."""
    for name, keep in (("whole", 1.0), ("half", 0.5)):
        train_image_tower(tuned(name, sections["image_tower"], epochs=2, min_validation_pictures=30, keep=keep), TRAINING)
    start, half, whole = (load_file(artifacts.model_dir(name) / WEIGHTS) for name in ("base", "half", "whole"))
    moved = [name for name, value in whole.items() if value.is_floating_point() and not torch.equal(value, start[name])]
    assert moved
    for name in moved:
        torch.testing.assert_close(half[name], (start[name] + whole[name]) / 2)
