"""The way back: weights between the start and what training made of it, on a real small model with batch norms."""

import pytest
import torch

from assets import artifacts
from assets.clip.model import load_clip
from assets.training.selection import kept
from assets.training.way_back import go_back, go_to
from tests.models import write_model

SHARES = [0.25, 0.5, 0.75]


@pytest.fixture
def tuned(tmp_path, monkeypatch):
    """(a model whose image tower has been moved by 1, its start's directory, its start's state)."""
    monkeypatch.chdir(tmp_path)
    start = artifacts.model_dir("base")
    write_model(start, "timm_and_hugging_face")
    model, *_ = load_clip(start)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.startswith("visual."):
                value += 1
    return model, start, before


def go(tuned, scores, chosen=True, shares=SHARES, at_start=0.1):
    """Validation gives `scores` by share; the end of the way has 0.5."""
    rows = [{"epoch": 0, "validation_search": at_start}, {"epoch": 3, "validation_search": 0.5}]
    model, start, before = tuned
    name = next(name for name in before if name.endswith("running_var"))
    seen = []

    def validate():
        seen.append(round(float((model.state_dict()[name] - before[name]).mean()), 4))
        return {"search": scores[seen[-1]]}

    cannot_choose = None if chosen else "too few"
    at_end = kept(rows, "search", start_is_candidate=False, cannot_choose=cannot_choose, validated_on="some")
    return go_back(model, start, at_end, rows[0], shares, validate, "search"), seen


@pytest.mark.parametrize(
    ("scores", "share"),
    [
        ({0.25: 0.2, 0.5: 0.9, 0.75: 0.6}, 0.5),
        ({0.25: 0.2, 0.5: 0.3, 0.75: 0.4}, 1.0),
        ({0.25: 0.6, 0.5: 0.3, 0.75: 0.6}, 0.75),  # of equals the one with more training
        ({0.25: 0.5, 0.5: 0.5, 0.75: 0.5}, 1.0),
    ],
)
def test_the_best_point_is_left_in_the_model_batch_norm_statistics_included(tuned, scores, share):
    found, seen = go(tuned, scores)
    model, _, before = tuned
    assert seen == SHARES  # what was validated is the model at each share
    for name, value in model.state_dict().items():
        moved = share if name.startswith("visual.") and value.is_floating_point() else float(name.startswith("visual."))
        torch.testing.assert_close(value.double(), before[name].double() + moved, rtol=0, atol=1e-5)
    assert (found.share, found.measures["validation_search"]) == (share, scores.get(share, 0.5))
    assert [point["share"] for point in found.way_back] == SHARES
    if share == 0.5:
        assert (
            str(found)
            == "50% of the way from the start to epoch 3, the best by validation search: 0.900, at its end 0.500, at the start 0.100"
        )
    if share == 1:
        assert str(found).startswith("epoch 3, the best by validation search: 0.500")


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(("shares", "at_start", "share"), [(SHARES, 0.7, 0.25), (SHARES, 0.9, 0), ([], 0.9, 0), ([], 0.5, 1)])
def test_where_training_made_the_model_worse_a_part_of_the_way_may_be_better_than_none(tuned, shares, at_start, share):
    """The way was gone from a better epoch alone: of 120 classes of six pictures the start was kept, and nothing else was tried."""
    model, _, before = tuned
    end = state_of(model)
    found, seen = go(tuned, {0.25: 0.8, 0.5: 0.6, 0.75: 0.5}, shares=shares, at_start=at_start)
    assert seen == shares
    assert [point["epoch"] for point in found.way_back] == [3] * len(shares)
    if share == 0.25:
        assert (found.epoch, found.share, found.measures["validation_search"]) == (3, 0.25, 0.8)
    else:
        assert (found.epoch, found.share) == (3 * share, 1.0)
        assert found.measures["validation_search"] == (0.5 if share else at_start)
        left = state_of(model)
        assert all(torch.equal(left[name], value) for name, value in (end if share else before).items()), "bit for bit"
        assert ("the start itself" in str(found)) == (not share)


def test_without_a_choice_the_start_stays(tuned):
    """Of 20 classes of six pictures the last epoch was kept: mAP 28.6 became 22.5, and no picture could tell."""
    model, _, before = tuned
    found, seen = go(tuned, {}, chosen=False)
    assert not seen
    assert (found.epoch, found.share, found.way_back, found.measures) == (0, 1.0, [], {"validation_search": 0.1})
    assert str(found) == "epoch 0, the start: too few"
    assert all(torch.equal(value, before[name]) for name, value in state_of(model).items())


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_share_that_is_asked_for_is_taken_whatever_validation_says(tuned, share):
    model, start, before = tuned
    rows = [{"epoch": 0, "validation_search": 0.9}, {"epoch": 1, "validation_search": 0.8}, {"epoch": 2, "validation_search": 0.1}]
    at_end = kept(rows, "search", start_is_candidate=False, cannot_choose=f"keep is {share:g}", validated_on="some")
    found = go_to(model, start, at_end, share, lambda: {"search": 0.2})
    name = next(name for name in before if name.endswith("running_var"))
    torch.testing.assert_close(model.state_dict()[name], before[name] + share, rtol=0, atol=1e-5)
    assert (found.epoch, found.share, found.chosen, found.measures) == (2, share, False, {"validation_search": 0.2})
    assert str(found).endswith(f"epoch 2, the last: keep is {share:g}")
