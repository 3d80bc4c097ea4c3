"""How fast this machine is: a few real steps of the towers that will train, and what they need of memory. What to do with it is plan.py's.

Everything here is timed for a few seconds and scaled up; other work on the machine changes it. Results are kept for the same settings,
unless other work had a good part of the processors.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

import psutil

from assets import artifacts
from assets.errors import UserError
from assets.params import DemoClip, Params
from assets.recipes import BASE

if TYPE_CHECKING:
    import torch

    from assets.clip.model import Clip

KEPT = artifacts.WORK / "plan" / "trial.json"
SECONDS_A_PART = 2.0  # for the last try of each thing that is timed
GROWTH = 4  # from one size to the next
TRIES = 3  # of a size, where they are short
SECONDS_OF_A_SLOW_TOWER = 5.0  # for two inputs, with what torch loads at its first step; a slower one is not tried again
ENOUGH_OF_THE_MACHINE = 0.65  # of the processors' time, while they compute; alone on two cores the demo's trial has 0.7 to 0.8
SECONDS_OF_DVC = 2.0  # a stage, for hashing and its own start
CONTEXT = 16  # tokens of a usual caption


@dataclass(frozen=True)
class Trial:
    """`steps`: seconds of a step by recipe (base: of the demo's alignment); None for a text tower of which the projection alone trains,
    where a step takes no time worth counting."""

    steps: dict[str, float | None]
    images_per_second: float  # embedded
    texts_per_second: float
    start_seconds: float  # until a stage's process is at work
    gigabytes: float  # at most, in any training
    device: str
    had: float  # share of the processors' time that the trial got

    @property
    def disturbed(self) -> bool:
        return self.had < ENOUGH_OF_THE_MACHINE


def trial(params: Params, batch_sizes: Mapping[str, int]) -> Trial | None:
    """Of batches as large as they will be, by recipe; those of the settings where a recipe is not named.

    None where the model is not there yet: a base from open_clip before base_clip has run.
    """
    settings = [recipe.settings.model_dump() for recipe in params.recipe.values() if recipe.settings is not None]
    key = json.dumps([params.base_clip.model_dump(), settings, dict(batch_sizes), os.cpu_count()])
    if KEPT.is_file() and (found := artifacts.read_json(KEPT))["key"] == key:
        return Trial(**found["trial"])
    made = _measure(params, batch_sizes)
    if made is not None and not made.disturbed:
        artifacts.write_json(KEPT, {"key": key, "trial": asdict(made)})
    return made


def inspected_per_second(pictures: list[bytes], max_pixels: int, min_side: int) -> float:
    """Source pictures read, decoded and hashed, in processes as curated_images does it."""
    from assets.curated_images.inspection import Inspector
    from assets.pictures.apart import MAX_SECONDS

    with Inspector({"max_pixels": max_pixels, "min_side": min_side}, MAX_SECONDS).opened() as look:
        look(None, pictures[: os.cpu_count()])  # the processes start
        begun = time.perf_counter()
        look(None, pictures)
    return len(pictures) / (time.perf_counter() - begun)


def _measure(params: Params, batch_sizes: Mapping[str, int]) -> Trial | None:
    from assets.machine import tune_for_torch

    tune_for_torch()
    import torch

    from assets.base_clip.demo import CONTEXT_LENGTH, untrained_clip
    from assets.clip.device import resolve_device
    from assets.clip.image_towers import image_tower_of
    from assets.clip.model import load_clip
    from assets.clip.trainable import unlock
    from assets.training.depthwise import quicken_depthwise

    start_seconds = time.time() - psutil.Process().create_time() + SECONDS_OF_DVC  # this process has loaded what a stage loads
    base = params.base_clip
    if isinstance(base, DemoClip):
        model, context = untrained_clip(base.image_size), CONTEXT_LENGTH
    elif (model := _pretrained(params, load_clip)) is not None:
        context = int(model.context_length or 77)
    else:
        return None
    device = resolve_device(params.image_tower.device)
    model.to(device)
    model.visual.to(memory_format=torch.channels_last)  # this and the next as training does
    quicken_depthwise(model.visual)
    size = image_tower_of(model).size

    watch = _Stopwatch(device)

    def texts(count: int) -> torch.Tensor:
        return model.encode_text(torch.ones(count, context, dtype=torch.int64, device=device))

    timed: dict[str, float | None] = {}  # what has the same of all that time depends on is timed once

    def step(name: str, tower: Literal["image", "text"], trains: str, settings: Any) -> float | None:
        size_of_batch = batch_sizes.get(name, settings.batch_size)
        lora = settings.lora.model_dump() if trains == "lora" else None
        key = json.dumps([tower, trains, settings.unlocked_groups, size_of_batch, settings.precision, lora])
        if key not in timed:
            if tower == "text" and trains == "projection":
                timed[key] = None
            else:
                model.requires_grad_(False)
                unlock(model, tower, trains, settings.unlocked_groups, lora)  # type: ignore[arg-type]
                model.visual.train(tower == "image")
                embedded = _views(model, settings, device) if tower == "image" else texts
                timed[key] = watch.seconds(_step(model, embedded, settings.precision, device), size_of_batch)
        return timed[key]

    steps = {BASE: step(BASE, "image", "last_groups", base)} if isinstance(base, DemoClip) else {}
    for name, recipe in params.recipe.items():
        if recipe.settings is not None:
            steps[name] = step(name, "image" if recipe.stage == "image_tower" else "text", recipe.settings.trains, recipe.settings)
    model.requires_grad_(False)
    model.eval()
    with torch.inference_mode():
        pixels = torch.zeros(32, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
        per_image = watch.seconds(lambda count: model.encode_image(pixels[:count]), 32) / 32
        tokens = torch.ones(32, min(CONTEXT, context), dtype=torch.int64, device=device)
        padded = torch.nn.functional.pad(tokens, (0, context - tokens.shape[1])) if not isinstance(base, DemoClip) else tokens
        per_text = watch.seconds(lambda count: model.encode_text(padded[:count]), 32) / 32
    return Trial(steps, 1 / per_image, 1 / per_text, start_seconds, _gigabytes(params, model, context), device, round(watch.had, 2))


class _Stopwatch:
    """Times work on a device, and knows which share of the processors it got."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.wall, self.busy = 0.0, 0.0  # seconds of the clock, of all processors

    @property
    def had(self) -> float:
        import torch

        return min(1.0, self.busy / self.wall / torch.get_num_threads()) if self.device == "cpu" and self.wall else 1.0

    def seconds(self, work: Callable[[int], object], inputs: int) -> float:
        """Of `work` on so many inputs. Sizes grow as far as there is time: scaling up a small one multiplies what any size takes."""
        count = min(2, inputs)  # two: batch norm cannot train on one
        if (took := self._once(work, count)[0]) > SECONDS_OF_A_SLOW_TOWER:  # the first is slower
            return took * inputs / count
        while True:
            tries: list[float] = []
            while not tries or (len(tries) < TRIES and sum(tries) < SECONDS_A_PART / 4):  # the first of a size is slower, too
                wall, busy = self._once(work, count)
                tries.append(wall)
                self.wall += wall
                self.busy += busy
            took = median(tries)
            larger = min(inputs, GROWTH * count)
            if count == inputs or took * larger / count > SECONDS_A_PART:
                return took * inputs / count
            count = larger

    def _once(self, work: Callable[[int], object], count: int) -> tuple[float, float]:
        """(seconds of the clock, of all processors)."""
        begun, busy = time.perf_counter(), time.process_time()
        work(count)
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize()
        return time.perf_counter() - begun, time.process_time() - busy


def _views(model: Clip, settings: Any, device: str) -> Callable[[int], torch.Tensor]:
    """Embeddings of so many augmented pictures, as the image tower's training makes them."""
    import torch

    from assets.clip.image_towers import image_tower_of
    from assets.training.augmentation import augment, stored_size
    from assets.training.randomness import generator_for

    size = image_tower_of(model).size
    augmentation = settings.augmentation.model_dump()

    def embedded(count: int) -> torch.Tensor:
        stored = torch.zeros(count, 3, stored_size(size), stored_size(size), dtype=torch.uint8, device=device)
        views = augment(stored, size, **augmentation, generator=generator_for(0, 0))
        return model.encode_image(views.contiguous(memory_format=torch.channels_last))

    return embedded


def _step(model: Clip, embedded: Callable[[int], torch.Tensor], precision: Any, device: str) -> Callable[[int], None]:
    """A training step of what is unlocked, on so many inputs."""
    import torch

    from assets.clip.device import autocast

    moved_by = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=0.0)

    def work(count: int) -> None:
        with autocast(device, precision):
            output = embedded(count)
        output.float().square().sum().backward()
        moved_by.step()
        moved_by.zero_grad()

    return work


def _pretrained(params: Params, load: Callable[..., Any]) -> Any | None:
    """The model in models/base where it is the one that params.yaml names."""
    folder = artifacts.model_dir(BASE)
    card = folder / artifacts.MODEL_CARD
    base = params.base_clip
    assert not isinstance(base, DemoClip)
    if not card.is_file() or artifacts.read_json(card)["params"].get("model") != base.model:
        return None
    return load(folder)[0]


def _gigabytes(params: Params, timed: Clip, context: int) -> float:
    """This process, the decoded pictures that are kept, and the most that a training's weights and activations take.

    `timed` loses its weights: building the model again takes a second or two, and is done only where adapters were put on it.
    """
    from assets.profiles.towers import build_model, image_cost, text_cost
    from assets.training.data import KEPT_BYTES, POOL_BYTES

    process = psutil.Process().memory_info().rss
    adapted = any(recipe.settings is not None and recipe.settings.trains == "lora" for recipe in params.recipe.values())
    model, context = build_model(params.base_clip) if adapted else (timed.to("meta"), context)
    costs = [0]

    def costs_of() -> Iterator[Any]:
        base = params.base_clip
        shared = ("unlocked_groups", "batch_size", "precision", "gradient_checkpointing", "ema_decay")
        if isinstance(base, DemoClip):
            alike = params.image_tower.model_copy(update={"trains": "last_groups"} | {name: getattr(base, name) for name in shared})
            yield image_cost(model, alike)
        seen = set()
        for stage in ("image_tower", "text_tower"):
            for recipe in (each for each in params.recipe.values() if each.stage == stage):
                if (key := str([stage, *(getattr(recipe.settings, name) for name in ("trains", *shared))])) not in seen:
                    seen.add(key)
                    yield image_cost(model, recipe.settings) if stage == "image_tower" else text_cost(model, context, recipe.settings)

    with contextlib.suppress(UserError):  # of a text tower whose cost cannot be counted
        costs.extend(cost.state_bytes + cost.activation_bytes for cost in costs_of())
    return (process + KEPT_BYTES + min(POOL_BYTES, KEPT_BYTES) + max(costs)) / 1e9
