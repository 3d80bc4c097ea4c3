"""What counts as trouble, by hand-computed measures. Runs with a broken learning rate: tests/text_tower."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from assets.params import Guards
from assets.training import guards
from tests.settings import demo_params

CHECKOUT = Path(__file__).parents[2]
LIMITS = demo_params().image_tower.guards
OFF = Guards(**dict.fromkeys(Guards.model_fields))
START = {"spread": 0.5, "text_to_image": 0.8, "image_to_image": 0.7}


def scalars(*values):
    return [torch.tensor(value) for value in values]


def test_spread_is_one_minus_the_mean_cosine_of_all_pairs():
    angles = np.array([0.0, 0.3, 1.2, 2.0])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert guards.spread(embeddings) == pytest.approx(1 - np.mean([np.cos(a - b) for a in angles for b in angles]))
    assert guards.spread(np.tile([[0.6, 0.8]], (5, 1))) == pytest.approx(0, abs=1e-12)
    assert guards.spread(embeddings[:1]) is None


def test_health_of_embeddings():
    before, now = np.eye(3)[:2], np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]])
    assert guards.health(now, before)["cosine_to_start"] == pytest.approx((1 + 0.8) / 2)
    assert guards.health(np.zeros((0, 3)), np.zeros((0, 3))) == {"spread": None, "cosine_to_start": None}


@pytest.mark.parametrize(("loss", "watched"), [(2.5, {"loss", "norm"}), (1e-4, {"loss"})])
def test_a_loss_that_starts_near_zero_has_no_gradient_to_compare_with(loss, watched):
    """Twenty classes of six pictures: norms of 0.05 at first, then 20 where the loss was 0.5, and the run was stopped as broken."""
    assert guards.comparable({"loss": loss, "norm": 0.05}).keys() == watched


@pytest.mark.parametrize(
    ("measures", "told"),
    [
        ({"spread": 0.051, "cosine_to_start": 0.31, "text_to_image": 0.36}, None),
        ({"spread": 0.049}, "collapsed: their spread is 0.049, at the start it was 0.5"),
        ({"cosine_to_start": -0.1}, None),
        ({"cosine_to_start": 0.29, "text_to_image": 0.76, "image_to_image": 0.66}, None),
        ({"cosine_to_start": 0.29, "text_to_image": 0.74}, "drifted .* 0.290 .*, and text→image .* mAP is 0.740, .* was 0.800"),
        ({"cosine_to_start": 0.29, "text_to_image": 0.9, "image_to_image": 0.64}, "drifted .* mAP is 0.640, at the start it was 0.700"),
        ({"image_to_image": 0.0}, None),
        ({"text_to_image": 0.34}, "text→image search is being lost: validation mAP is 0.340, at the start it was 0.800"),
        (dict.fromkeys(["spread", "cosine_to_start", "text_to_image", "image_to_image"]), None),
        ({}, None),
    ],
)
def test_measures_with_a_standard_error(measures, told):
    noise = dict.fromkeys(guards.SEARCHES, 0.05 / 3)  # so that text_to_image may fall to 0.05 below 0.5 · 0.8
    found = guards.trouble_in_measures(measures, START, noise, LIMITS)
    if told is None:
        assert found is None
    else:
        assert found is not None
        assert re.search(told, found), found
    assert guards.trouble_in_measures(measures, START, noise, OFF) is None


def test_a_handful_of_names_or_equal_pictures_stop_no_run():
    def trouble(measures, names):
        noise = guards.standard_errors({"text_to_image": np.ones(names)})  # each name found all of its pictures first
        return guards.trouble_in_measures(measures, {"text_to_image": 1.0}, noise, LIMITS)

    assert trouble({"text_to_image": 0.1, "cosine_to_start": 0.0}, 2) is None
    assert trouble({"text_to_image": 0.0}, 4) is None
    assert trouble({"text_to_image": 0.0}, 10) is not None
    assert guards.trouble_in_measures({"spread": 0.0}, {"spread": 1e-7}, {}, LIMITS) is None


def test_a_low_map_of_many_names_that_is_lost_stops_the_run():
    """The bound for recall, 0.5 / √names, is wider than the whole mAP of a base that is not good yet: nothing was ever lost."""
    noise = guards.standard_errors({"text_to_image": np.random.default_rng(0).beta(1, 4, 200)})
    assert noise["text_to_image"] < 0.02
    assert guards.trouble_in_measures({"text_to_image": 0.03}, {"text_to_image": 0.2}, noise, LIMITS) is not None
    assert guards.trouble_in_measures({"text_to_image": 0.08}, {"text_to_image": 0.2}, noise, LIMITS) is None
    assert guards.standard_errors({"text_to_image": np.zeros(0)})["text_to_image"] == 0.5


def test_steps_are_judged_by_the_median_of_ten():
    spike = scalars(*[1.0] * 6, *[1e9] * 4)
    assert guards.trouble_in_steps("loss", spike, 1.0, 2.0, floor=0.0) is None
    risen = scalars(*[9.0] * 3, *[2.5] * 10)
    assert "risen to 2.5, 2.5 times the 1 of" in guards.trouble_in_steps("loss", risen, 1.0, 2.0, floor=0.0)
    assert guards.trouble_in_steps("loss", risen, 1.0, 2.0, floor=3.0) is None
    assert guards.trouble_in_steps("loss", risen, None, 2.0, floor=0.0) is None
    assert guards.trouble_in_steps("loss", risen, 1.0, None, floor=0.0) is None
    assert guards.trouble_in_steps("loss", risen[:9], 1.0, 2.0, floor=0.0) is None


@pytest.mark.parametrize(("scale", "fine"), [(15.0, True), (100.0, True), (150.1, False), (1.49, False)])
def test_logit_scale(scale, fine):
    assert (guards.trouble_in_logit_scale(scale, 15.0, 10.0) is None) == fine
    assert guards.trouble_in_logit_scale(scale, 15.0, None) is None
