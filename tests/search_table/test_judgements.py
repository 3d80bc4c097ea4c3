"""make judgements: what people said of hits becomes a measure of every version, over a real table and file."""

from __future__ import annotations

import json

from assets import artifacts
from assets.commands import judgements
from assets.params import read_params
from assets.search_table import judgements as lines
from assets.search_table import search
from assets.search_table.query import model_of
from assets.search_table.stage import publish
from assets.search_table.table import open_version
from tests.search_table.conftest import RECIPE, curated_rows, retrain, write_curated


def judge(query: dict[str, object], key: str, right: bool) -> None:
    table = open_version()
    lines.append(artifacts.JUDGEMENTS, {"query": query, "id": key, "right": right, "version": table.version, "model": model_of(table)})


def test_each_version_is_compared_with_the_judgements(unpublished, capsys):
    """A version was measured by another one's model, an unjudged hit counted as wrong, or one bad line lost the rest."""
    assert judgements.main() == 1
    assert "✓ and ✗" in capsys.readouterr().err
    publish(read_params()[0].search_table, RECIPE)
    hearts = search("a red heart", k=26)["id"].to_pylist()
    judge({"text": "a red heart"}, hearts[0], False)
    judge({"text": "a red heart"}, hearts[0], True)  # thought better of it
    judge({"text": "a red heart"}, hearts[3], False)
    judge({"text": "a red heart"}, hearts[20], True)
    ships = search("a ship", k=26, where="split = 'test'")["id"].to_pylist()
    judge({"text": "a ship", "where": "split = 'test'"}, ships[0], False)
    judge({"text": "a ship", "where": "split = 'test'"}, ships[2], True)
    judge({"like": [hearts[0]], "less": ["a ship"]}, "gone from here", True)
    judge({"picture": "0" * 64}, hearts[0], True)
    judge({"text": "a red heart", "where": "colour = 1"}, hearts[0], True)
    judge({"text": 5}, hearts[0], True)
    judge({"less": "a", "like": [[]]}, hearts[0], True)
    with artifacts.JUDGEMENTS.open("ab") as file:
        file.write(b'[]\n{"query": {}, "id": 1}\n\xff\xfe\n' + b"[" * 10_000 + b'\n{"query": {"text": "a\\u2028b"}, "i')
    judge({"text": "one line\u2028still"}, hearts[1], True)
    assert judgements.main() == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if "publish-0001" in line)
    # precision: of the first ten 1 of 2, then 1 of 2, then 1 of 1 or none; agreement: 1 of 2 pairs, then 0 of 1
    once = search("one line\u2028still", k=10)["id"].to_pylist()
    assert row.split("@")[1].split()[1:4] == ["4", f"{100 * ((0.5 + 0.5 + 1) / 3 if hearts[1] in once else 0.5):.1f}", "%"]
    assert " 25.0 %" in row
    assert "5 lines of data/judgements.jsonl are broken" in out
    assert "1 hits were judged both ways" in out
    assert "publish-0001: 1 judged pictures are not in this version" in out
    assert "1 queries were left out: asked by a picture" in out
    assert "2 queries were left out: not a query of the page." in out
    assert "there is no column 'colour'" in out
    retrain(0.5)
    write_curated(curated_rows(per_class=7))
    publish(read_params()[0].search_table, RECIPE)
    newer = search("a red heart", k=30)["id"].to_pylist()
    judge({"text": "a red heart"}, newer[0], False)
    assert judgements.main() == 0
    both = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if "publish-000" in line and "%" in line}
    assert len(both) == 2
    assert "← visible" in both[max(both)]
    first = [judged for judged in lines.read(artifacts.JUDGEMENTS) if judged["query"] == {"text": "a red heart"}]
    assert len(first) == 4
    json.loads(artifacts.JUDGEMENTS.read_bytes().splitlines()[0])


def test_among_ranks_these_alone(published):
    every = search("a red heart", k=26)["id"].to_pylist()
    some = [every[20], every[3], "absent", every[11]]
    for by in ("vector", "text", "hybrid"):
        found = search("a red heart", k=26, by=by, among=some)["id"].to_pylist()
        assert set(found) <= set(some)
    assert search("a red heart", among=some)["id"].to_pylist() == [every[3], every[11], every[20]]
    assert search("a red heart", among=[]).num_rows == 0
    assert search("a red heart", among=some, where="split = 'test'", like=every[3])["id"].to_pylist() == [
        key for key in search("a red heart", k=26, where="split = 'test'", like=every[3])["id"].to_pylist() if key in some
    ]
