"""The plan: its counts are those of the split, its trial is of this machine's towers, and it says what a small folder cannot show."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from assets import artifacts
from assets.commands import plan, trial
from assets.curated_images.split import split_images
from assets.errors import UserError
from assets.params import read_params
from tests.settings import demo_settings
from tests.tiny_project import TINY, make_pictures


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pictures as the source, and the demo's settings made tiny."""
    monkeypatch.chdir(tmp_path)
    Path("data/images").mkdir(parents=True)
    make_pictures(Path("data/images"))
    settings = demo_settings()
    for section, own in TINY.items():
        settings[section] |= own
    Path("params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return tmp_path


def test_the_plan_counts_as_the_split_does_and_names_what_cannot_be_measured(tiny: Path, capsys: pytest.CaptureFixture[str]):
    assert plan.main() == 0
    told = capsys.readouterr().out
    params, written = read_params()
    found = plan.listing(params, written)
    assert found is not None
    split = plan.split_of(found, params)
    kept = [(each, label) for each, label in zip(found.ids, found.labels, strict=True) if label != "lonely"]
    labels = [label for _, label in kept]
    settings = params.curated_images
    wanted = split_images(
        [each for each, _ in kept],
        labels,
        labels,
        [None] * len(kept),
        seed=settings.seed,
        test_fraction=settings.test_fraction,
        validation_classes=settings.validation_classes,
        validation_pictures=settings.validation_pictures,
    )
    assert dict(split.pictures) == {name: wanted.count(name) for name in set(wanted)}
    assert "47 in data/images: 45 with a label, 2 without" in told
    assert "with fewer than 6 every difference is a tie" in told
    assert "rejected: 1 (lonely)" in told
    assert "from the start on this machine (cpu), by a short trial" in told
    assert "GB at most" in told


def test_families_and_a_split_of_the_source_are_planned_as_they_are_kept(tiny: Path):
    """Six classes of two families are two draws of an interval, not six; classes on both sides say nothing about unseen ones."""
    for folder in [each for each in Path("data/images").iterdir() if each.is_dir()]:
        color = folder.name.partition("_")[0]
        for split in ("train", "test"):
            (Path("by_split") / split / color).mkdir(parents=True, exist_ok=True)
            shutil.copytree(folder, Path("by_split") / split / color / folder.name)
    settings = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    (source,) = settings["source_images"]["sources"]
    for root, folders, tested in (
        ("by_split/train", ["family", "label"], 1),
        ("by_split", ["split", "family", "label"], 3),
        ("by_split", ["label"], 3),  # train and test are recognised; the labels are the colours
    ):
        source |= {"root": root, "folders": folders}
        Path("params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        params, written = read_params()
        found = plan.listing(params, written)
        assert found is not None
        split = plan.split_of(found, params)
        assert len(split.sides.families["test"]) == tested, (folders, split.families)
        assert any("test families (classes that belong together)" in each for each in plan.not_measurable(params, split))
        assert any("the source gives the split" in each for each in plan.not_measurable(params, split)) == (root == "by_split")


def test_the_trial_is_of_each_tower_that_trains_and_is_kept(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    params, _ = read_params()
    first = trial.trial(params, {})
    assert first is not None
    assert first.steps.keys() == params.recipe.keys()
    assert all(took is None or 0 < took < 60 for took in first.steps.values())
    assert first.steps["mcip_rea"] is None, "the projection alone trains: nothing to count"
    assert first.images_per_second > 1 and first.texts_per_second > 1 and 0.1 < first.gigabytes < 16
    assert first.steps["gpr"] == first.steps["mcip"], "the same of all that time depends on is timed once"
    busy, idle = replace(first, had=0.5), replace(first, had=0.75)
    for measured in (busy, idle):
        trial.KEPT.unlink(missing_ok=True)
        monkeypatch.setattr(trial, "_measure", lambda *given, measured=measured: measured)
        assert trial.trial(params, {}) == measured
    monkeypatch.setattr(trial, "_measure", lambda *given: pytest.fail("timed again"))
    assert trial.trial(params, {}) == idle


def test_steps_are_timed_in_batches_as_large_as_they_will_be(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    """Scaled down from the settings' batch, a small folder's steps lost what each takes at any size: 5 minutes were 8."""
    params, written = read_params()
    found = plan.listing(params, written)
    assert found is not None
    asked: list[dict[str, int]] = []
    monkeypatch.setattr(trial, "_measure", lambda params, batch_sizes: asked.append(dict(batch_sizes)))
    list(plan.lines(params, written))
    wanted = {name: run.batch_size for name, run in plan.lengths(params, plan.split_of(found, params).pictures["train"]).items()}
    assert asked == [wanted]


def test_a_trial_that_other_work_disturbed_says_so_and_is_not_kept(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """What was timed beside another training, three times too long, was shown ever after."""
    made = trial.Trial(dict.fromkeys(read_params()[0].recipe, 1.0), 500.0, 200.0, 8.0, 1.5, "cpu", had=0.4)
    monkeypatch.setattr(trial, "_measure", lambda *given: made)
    assert plan.main() == 0
    assert "other work took processors from the trial" in capsys.readouterr().out
    assert not trial.KEPT.exists()


def test_a_base_that_is_not_there_yet_is_not_timed(tiny: Path, capsys: pytest.CaptureFixture[str]):
    settings = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    settings["base_clip"] = {"source": "open_clip", "model": "ViT-B-32", "pretrained": "openai", "resize": "own"}
    Path("params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert plan.main() == 0
    assert "unknown until the base is there (models/base)" in capsys.readouterr().out


def test_a_folder_of_one_class_fails_before_anything_runs(tiny: Path):
    for folder in Path("data/images").iterdir():
        if folder.is_dir() and folder.name != "red_circle":
            for file in folder.iterdir():
                file.unlink()
    Path("data/images/captions.csv").unlink()
    params, written = read_params()
    found = plan.listing(params, written)
    assert found is not None
    with pytest.raises(UserError, match=r"data/images: 1 class.*At least 2 are needed"):
        plan.split_of(found, params)


def test_the_demo_s_plan_before_its_drawings_are_there(tiny: Path, capsys: pytest.CaptureFixture[str]):
    Path("params.yaml").write_text(yaml.safe_dump(demo_settings()), encoding="utf-8")
    assert plan.main() == 0
    assert "not here yet" in capsys.readouterr().out
    assert not artifacts.SOURCE_IMAGES.exists()
