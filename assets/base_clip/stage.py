"""Stage base_clip: reads the training split of curated_images, writes models/base."""

from __future__ import annotations

from assets import artifacts
from assets.base_clip.demo import make_demo_clip
from assets.base_clip.pretrained import make_pretrained_clip
from assets.params import BaseClip, DemoClip, Training
from assets.recipes import BASE


def make_base_clip(settings: BaseClip, training: Training) -> None:
    """`training.processes` has no effect here: the base is aligned in one process."""
    target = artifacts.model_dir(BASE)
    if isinstance(settings, DemoClip):
        make_demo_clip(settings, training, artifacts.CURATED_IMAGES, target)
    else:
        make_pretrained_clip(settings, target)
