"""python -m assets.profiles: check every profile against params.yaml and print what training it costs. `… use NAME`: make it the settings.

What a profile changes is overlay.py's to decide; what a training costs, towers.py's to count.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from assets.errors import UserError
from assets.params import PARAMS_FILE
from assets.profiles.overlay import profiles, use, with_profile

if TYPE_CHECKING:
    from assets.profiles.cost import Cost

ASSUMED_FLOPS = 100e12  # per second, of the device whose seconds are printed


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case []:
                return check()
            case ["use", name]:
                changes = use(name)
                print(*[f"{PARAMS_FILE}: {change}" for change in changes], sep="\n")
                print(f"{PARAMS_FILE} has the settings of {name}{'' if changes else ' already'}.")
                return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{__doc__}\nprofiles: {', '.join(profiles())}", file=sys.stderr)
    return 2


def check() -> int:
    """Print each profile's costs, or what is wrong with it; 1 if one is wrong."""
    from assets.profiles.towers import build_model, image_cost, text_cost  # loads torch, which `use` does without

    print("GB as counted in assets/profiles/cost.py; seconds per step at 100 TFLOP/s achieved; captions at the tower's whole context")
    columns = ["profile", "stage", "trains", "trained M", "locked M", "state GB", "activations GB", "TFLOP/step", "s/step"]
    print("".join(name.rjust(15) for name in columns))
    failed = False
    for name in profiles():
        try:
            _, params, _ = with_profile(name)
            model, context_length = build_model(params.base_clip)
            for stage, settings, cost in (
                ("image_tower", params.image_tower, image_cost(model, params.image_tower)),
                ("text_tower", params.text_tower, text_cost(model, context_length, params.text_tower)),
            ):
                print(row(name, stage, settings.trains, cost))
        except UserError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
    return int(failed)


def row(profile: str, stage: str, trains: str, cost: Cost) -> str:
    numbers = [
        f"{cost.trained / 1e6:.1f}",
        f"{cost.locked / 1e6:.1f}",
        f"{cost.state_bytes / 1e9:.2f}",
        f"{cost.activation_bytes / 1e9:.2f}",
        f"{cost.step_flops / 1e12:.2f}",
        f"{cost.step_flops / ASSUMED_FLOPS:.3f}",
    ]
    return "".join(field.rjust(15) for field in (profile, stage, trains, *numbers))


if __name__ == "__main__":
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns that there are no weights
    sys.exit(main(sys.argv[1:]))
