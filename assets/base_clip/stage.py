"""Stage base_clip: reads the training split of curated_images, writes models/base."""

from __future__ import annotations

from assets import artifacts
from assets.base_clip.demo import make_demo_clip
from assets.base_clip.pretrained import make_pretrained_clip
from assets.params import BaseClip, DemoClip


def make_base_clip(settings: BaseClip) -> None:
    target = artifacts.model_dir("base")
    if isinstance(settings, DemoClip):
        make_demo_clip(settings, artifacts.CURATED_IMAGES, target)
    else:
        make_pretrained_clip(settings, target)
