"""A profile changes what it names, keeps the rest of params.yaml to the letter, and writes nothing that does not validate."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from assets.errors import UserError
from assets.params import read_params
from assets.profiles import overlay
from assets.profiles.overlay import as_loaded, profiles, use, with_profile, with_values
from tests.settings import PARAMS_FILE, demo_text

OTHERS = sorted(set(profiles()) - {"demo"})
MODELS = sorted(set(OTHERS) - {"ablation", "sweep", "paper_data"})  # which go on top of another profile


@pytest.fixture
def params_file(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(demo_text(), encoding="utf-8")
    return path


def read(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path)


@pytest.mark.parametrize("name", sorted(profiles()))
def test_a_profile_fits_the_checkout_s_settings(name: str):
    text, params, _ = with_profile(name, PARAMS_FILE)
    assert list(YAML(typ="safe", pure=True).load(text)) == list(type(params).model_fields)


@pytest.mark.parametrize("name", OTHERS)
def test_the_demo_s_profile_brings_the_demo_back_to_the_letter(name: str, params_file: Path):
    before = params_file.read_text(encoding="utf-8")
    assert use(name, params_file)
    assert params_file.read_text(encoding="utf-8") != before
    use("demo", params_file)
    assert params_file.read_text(encoding="utf-8") == before


@pytest.mark.parametrize("name", OTHERS)
def test_only_lines_of_changed_settings_change(name: str, params_file: Path):
    before = params_file.read_text(encoding="utf-8").splitlines()
    use(name, params_file)
    after = params_file.read_text(encoding="utf-8").splitlines()
    # comments of the replaced section base_clip go with it; all others, section headers and blank lines stay
    start, end = (next(n for n, line in enumerate(before) if line.startswith(section)) for section in ("base_clip:", "pseudo_captions:"))
    kept = [
        line.partition(" # ")[2]
        for line in before[:start] + before[end:]
        if " # " in line and "data/emoji" not in line and "size: 96" not in line
    ]
    assert [comment for comment in kept if not any(line.endswith(comment) for line in after)] == []
    assert after[-1] == before[-1]
    assert sum(not line for line in after) == sum(not line for line in before)
    assert max(map(len, after)) < 160


def test_a_source_of_ones_own_and_back_to_the_letter(params_file: Path):
    """The blank line after a list whose last value is in brackets hangs on the list itself, and went with it."""
    before = params_file.read_text(encoding="utf-8")
    folder = {"kind": "image_folder", "root": "/a folder: é #1", "folders": ["label"], "license": "unknown", "attribution": "unknown"}
    text, params, changes = with_values(as_loaded({"source_images": {"sources": [folder]}}), "ours", params_file)
    assert len(changes) == 1 and params.source_images.sources[0].root == folder["root"]
    assert sum(not line for line in text.splitlines()) == sum(not line for line in before.splitlines())
    assert "data/README.md, «Pictures of your own»" in text
    params_file.write_text(text, encoding="utf-8")
    use("demo", params_file)
    assert params_file.read_text(encoding="utf-8") == before


def test_what_a_user_added_stays(params_file: Path):
    row = "    wide: {from: base, margin: 0.3, about: a wider margin} # mine\n"
    text = params_file.read_text(encoding="utf-8").replace("  image_tower: # stage one\n", f"  image_tower: # stage one\n{row}")
    params_file.write_text(text, encoding="utf-8")
    use("vit_b_32", params_file)
    assert row in params_file.read_text(encoding="utf-8")
    assert read_params(params_file)[0].recipe["wide"].settings.margin == 0.3
    assert read_params(params_file)[0].recipe["wide"].settings.trains == "all"


def profile(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (folder / "profiles").mkdir()
    (folder / "profiles" / "mine.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(overlay, "FOLDER", folder / "profiles")


def test_the_rule(tmp_path: Path, params_file: Path, monkeypatch: pytest.MonkeyPatch):
    """Mappings merge, another source replaces, lists replace."""
    old = read(params_file)
    profile(
        tmp_path,
        monkeypatch,
        "base_clip: {source: open_clip, model: RN50, pretrained: openai, resize: own}\n"
        "image_tower: {lora: {rank: 4}}\nevaluation: {prompts: ['{}']}\n",
    )
    assert len(use("mine", params_file)) == 3
    new = read(params_file)
    assert new["base_clip"] == {"source": "open_clip", "model": "RN50", "pretrained": "openai", "resize": "own"}
    assert new["image_tower"] == old["image_tower"] | {"lora": old["image_tower"]["lora"] | {"rank": 4}}
    assert new["evaluation"] == old["evaluation"] | {"prompts": ["{}"]}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("image_tower: {margn: 0.2}", "image_tower.margn: no such setting"),
        ("image_tower: {margin: 3.0}", "image_tower.margin: given 3.0"),
        ("training: {processes: 3}", "training.processes: given 3"),
        ("a: [1", "mine.yaml is not valid YAML"),
        ("- image_tower", "must hold sections"),
    ],
)
def test_a_wrong_profile_changes_nothing(text: str, named: str, tmp_path: Path, params_file: Path, monkeypatch: pytest.MonkeyPatch):
    before = params_file.read_bytes()
    profile(tmp_path, monkeypatch, text)
    with pytest.raises(UserError) as raised:
        use("mine", params_file)
    assert named in str(raised.value)
    assert "mine.yaml" in str(raised.value)
    assert params_file.read_bytes() == before


@pytest.mark.parametrize("first", MODELS)
@pytest.mark.parametrize("second", MODELS)
def test_a_profile_leaves_nothing_of_the_one_before(first: str, second: str, params_file: Path):
    """A setting that only one profile names stays when another follows, such as SigLIP's patch dropout for ViT-L."""
    alone = with_profile(second, params_file)[1]
    use(first, params_file)
    assert with_profile(second, params_file)[1] == alone


def test_the_authors_settings_for_vit_l():
    params = with_profile("vit_l_14_336", PARAMS_FILE)[1]
    image, text = params.image_tower, params.text_tower
    base = {"source": "open_clip", "model": "ViT-L-14-336", "pretrained": "openai", "resize": "squash"}
    assert params.base_clip.model_dump() == base
    assert (image.lr, image.class_centers_lr, image.batch_size, image.epochs) == (1e-6, 1e-4, 128, 3)
    assert image.lr * image.final_lr_fraction == pytest.approx(1e-7)
    assert (image.weight_decay, image.gradient_clip_norm, image.patch_dropout) == (0.01, 1.0, 0.0)
    assert image.gradient_checkpointing
    assert image.trains == "all"
    assert (text.lr, text.batch_size) == (1e-5, 32768)
    assert params.pseudo_captions.top_k == 20


@pytest.mark.parametrize("name", MODELS)
def test_the_authors_settings_for_realigning(name: str):
    """Their script: --lr 1e-5, --wd 0.2, no --grad-clip-norm, a cosine to 0, --lock-text-unlocked-layers 16, no --siglip."""
    text = with_profile(name, PARAMS_FILE)[1].text_tower
    assert (text.lr, text.weight_decay, text.gradient_clip_norm, text.final_lr_fraction) == (1e-5, 0.2, None, 0.0)
    assert (text.trains, text.unlocked_groups) == ("last_groups", 1)
    assert text.loss == ("info_nce" if name.startswith("siglip") else "base")


def test_the_authors_settings_for_siglip():
    params = with_profile("siglip_so400m", PARAMS_FILE)[1]
    assert params.image_tower.patch_dropout == 0.33
    assert params.base_clip.resize == "own"


def test_the_table_of_deviations_says_what_the_profiles_hold(checkout: Path):
    """README's `section.setting: value`, in the profiles named after it in brackets, else in all: a table that was true once misleads."""
    section = (checkout / "README.md").read_text(encoding="utf-8").partition("## Use a pretrained CLIP")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    said = [found for row in rows for found in re.findall(r"`(\w+)\.(\w+): ([^`]+)`(?: \(([^)]*)\))?", row)]
    assert len(said) > 15
    for part, setting, value, where in said:
        names = [name for name in MODELS if name in where] or MODELS
        for name in names:
            held = getattr(getattr(with_profile(name, PARAMS_FILE)[1], part), setting)
            assert held == YAML(typ="safe", pure=True).load(value), f"{name}: {part}.{setting}"


def test_the_ablation_adds_its_rows_to_whatever_rows_there_are(params_file: Path):
    row = "    wide: {from: base, margin: 0.3, about: a wider margin} # mine\n"
    text = params_file.read_text(encoding="utf-8").replace("  image_tower: # stage one\n", f"  image_tower: # stage one\n{row}")
    params_file.write_text(text.replace("measured: [base, ", "measured: [base, wide, "), encoding="utf-8")
    before = read_params(params_file)[0]
    use("ablation", params_file)
    params = read_params(params_file)[0]
    assert params.recipes.measured == [*before.recipes.measured, "mcip_own", "mcip_found"]
    assert params.promotion == before.promotion
    mcip = before.recipe["mcip"].settings
    for name, captions in (("mcip", "both"), ("mcip_own", "own"), ("mcip_found", "found")):
        assert params.recipe[name].settings == mcip.model_copy(update={"captions": captions})
    assert use("ablation", params_file) == []
    use("demo", params_file)
    assert params_file.read_text(encoding="utf-8") == text.replace("measured: [base, ", "measured: [base, wide, ")


BEFORE = """\
a:
  rows:
    - one # first
    - two # second
    - three # third
    # the end of rows
  table:
    x: 1 # of x
    y: {k: 2} # of y
    # about z
    z: 3 # of z
    # the end of table
  flow: [p] # of flow

  # before last
  last: 1
  # the end of a
b: 2
"""
AFTER = """\
a:
  rows:
    - one # first
    - three # third
    - four
    # the end of rows
  table:
    x: 1 # of x
    w: 0
    # about z
    # the end of table
  flow: [p, q] # of flow

  # before last
  last: 1
  # the end of a
b: 2
"""


def test_adding_and_taking_leaves_the_lines_and_comments_of_others(tmp_path: Path):
    """What follows a value hangs on it: it must neither go with a value that goes, nor come before one that is added."""
    for name, text in (
        ("before", BEFORE),
        ("profile", "a: {rows+: [four, one], rows-: [two, six], table-: [y, z], table: {w: 0}, flow+: [q]}"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
    settings = overlay._load(tmp_path / "before")
    changes = list(overlay._merge(settings, overlay._load(tmp_path / "profile"), ()))
    assert changes == [
        'a.rows: ["one", "two", "three"] → ["one", "two", "three", "four"]',
        'a.rows: ["one", "two", "three", "four"] → ["one", "three", "four"]',
        "a.table.y: {k: 2} → absent",
        "a.table.z: 3 → absent",
        "a.table.w: absent → 0",
        'a.flow: ["p"] → ["p", "q"]',
    ]
    written = io.StringIO()
    overlay._yaml().dump(settings, written)
    assert written.getvalue() == AFTER
