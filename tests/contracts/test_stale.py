"""What each edit makes stale: exactly the stages whose result may differ."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.tiny_project import Project

EVALUATIONS = {f"evaluation@{name}" for name in ("base", "mcip", "mcip_rea", "onespace")}
MEASURED = {*EVALUATIONS, "champion"}  # what measures is the same code
JUDGED = {"promotion", "report", "search_table"}
TEXT_TOWERS = {"text_tower@mcip_rea", "text_tower@onespace"}
AFTER_MCIP = {*TEXT_TOWERS, *EVALUATIONS - {"evaluation@base"}, *JUDGED, "export"}  # mcip_rea is published
AFTER_BASE = {
    "pseudo_captions",
    "training_captions@gpr",
    "training_captions@mcip",
    "image_tower@gpr",
    "image_tower@mcip",
    "evaluation@base",
    *AFTER_MCIP,
}

EDITS = {
    "a new function in a metric module that training does not use": (
        "assets/metrics/bootstrap.py",
        r"\Z",
        "\n\ndef unused() -> None:\n    pass\n",
        {*MEASURED, *JUDGED},
    ),
    "a paper's row of Table 1": ("assets/report/paper.py", r"87\.1", "87.2", {"report"}),
    "a comment in the report": ("assets/report/drawing.py", r"\A", "# a comment\n", {"report"}),
    "a template of the page": ("assets/report/page.css", r"\Z", "\n/* */\n", {"report"}),
    "a word of a loss": (
        "assets/image_tower/losses.py",
        r"\Z",
        "\n# a comment\n",
        {"image_tower@gpr", "image_tower@mcip", *AFTER_MCIP},
    ),
    "how often state is saved": ("params.yaml", r"checkpoint_minutes: \S+", "checkpoint_minutes: 7", set()),
    "compile": ("params.yaml", r"compile: false", "compile: true", set()),
    "the engine": ("params.yaml", r"engine:(?:\n|.)*?kind: local", "engine:\n  kind: ray", set()),
    "processes": ("params.yaml", r"processes: 1", "processes: 2", set()),
    "a setting of Dagster": ("params.yaml", r"retries: 2", "retries: 3", set()),
    "the promotion gate": ("params.yaml", r"against: base", "against: champion", {"promotion", "report", "search_table"}),
    "queries of the report": ("params.yaml", r"worst_failures: \d+", "worst_failures: 1", {"report"}),
    "a margin of one row": (
        "params.yaml",
        r"(mcip:(?:\n|.)*?)about: image",
        r"\1margin: 0.2\n      about: image",
        {"training_captions@mcip", "image_tower@mcip", *AFTER_MCIP},
    ),
    "the learning rate of stage two": (
        "params.yaml",
        r"(text_tower:\n  seed: 0(?:\n|.)*?)lr: \S+",
        r"\1lr: 0.001",
        {*TEXT_TOWERS, "evaluation@mcip_rea", "evaluation@onespace", *JUDGED, "export"},
    ),
    "k of k-NN": ("params.yaml", r"knn_k: \d+", "knn_k: 2", {*MEASURED, *JUDGED}),
    "a query's code": ("assets/search_table/query.py", r"\Z", "\n# a comment\n", set()),
    "the command's code": ("assets/__main__.py", r"\Z", "\n# a comment\n", set()),
    "a decoder": ("assets/pictures/decoding.py", r"\Z", "\n# a comment\n", {"curated_images", "base_clip", "champion", *AFTER_BASE}),
    "a picture of the library": (
        "data/images/holiday.jpg",
        None,
        None,
        {"source_images", "curated_images", "base_clip", "champion", *AFTER_BASE},
    ),
}


@pytest.fixture
def undone(project: Project) -> Iterator[list[Path]]:
    """Files whose bytes are put back afterwards."""
    changed: list[Path] = []
    before: dict[Path, bytes] = {}

    class Noting(list):
        def append(self, file: Path) -> None:
            before[file] = file.read_bytes()
            super().append(file)

    changed = Noting()
    yield changed
    for file, content in before.items():
        file.write_bytes(content)


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_makes_stale_what_may_differ(edit: str, project: Project, undone: list[Path]):
    name, pattern, replacement, expected = EDITS[edit]
    file = project.folder / name
    undone.append(file)
    if pattern is None:
        file.write_bytes(file.read_bytes() + b"\0")
    else:
        text, count = re.subn(pattern, replacement, file.read_text(encoding="utf-8"), count=1)
        assert count, f"{name} has nothing like {pattern}"
        file.write_text(text, encoding="utf-8")
    assert project.would_run() == expected


def test_captions_that_change_leave_a_recipe_without_captions_as_it_is(project: Project, undone: list[Path]):
    """dvc's graph goes from captions to every image tower; what is run is decided by content."""
    file = project.folder / "params.yaml"
    undone.append(file)
    undone.append(project.folder / "dvc.lock")
    text = file.read_text(encoding="utf-8")
    file.write_text(re.sub(r"min_z: \S+", "min_z: -9.0", text, count=1), encoding="utf-8")
    assert set(project.status()) == {"pseudo_captions"}
    project.dvc("repro", "training_captions@gpr", "training_captions@mcip")
    stale = project.would_run()
    file.write_text(text, encoding="utf-8")
    project.dvc("repro", "training_captions@gpr", "training_captions@mcip")
    assert stale == {"image_tower@mcip", *AFTER_MCIP}
