"""python -m tests.benchmarks.queries [ROWS]: what a query costs, in this process and through the service, as ratios in one run.

int8 and fp32 text towers ÷ torch in fp32 (time, bytes, cosine, and the recall lost that the export has measured); a warm text query ÷ the
text tower's own forward (wanted: 2 or less); requests/s and p99 of 32 clients on 127.0.0.1. 12,000 rows unless told.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from assets import artifacts
from assets.clip.encoder import Encoder
from assets.clip.kept_graphs import GRAPHS, keep_graphs
from assets.clip.onnx_towers import GRAPH, TEXTUAL, OnnxTowers
from assets.export.stage import export
from assets.params import Params, read_params
from assets.search_table.query import search
from assets.search_table.writing import write_table
from tests.benchmarks.publishing import write_curated
from tests.model_at_hand import model_at_hand
from tests.search_table.conftest import png
from tests.stopwatch import timed

CLIENTS, REQUESTS = 32, 10  # requests of each client
COLOURS, THINGS = ("a red", "a blue", "some green", "one small", "the old"), ("heart", "cat", "ship", "tree")
TEXTS = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
CHECKOUT = Path(__file__).resolve().parents[2]


def main(rows: int = 12_000) -> None:
    settings, home = read_params()[0], Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        model, what = model_at_hand(Path(folder))
        recipe = settings.promotion.recipe
        shutil.copy2("params.yaml", folder)
        if (artifacts.EXPORT / artifacts.EXPORT_CARD).is_file():
            shutil.copytree(artifacts.EXPORT.resolve(), Path(folder) / artifacts.EXPORT)
        os.chdir(folder)
        try:
            artifacts.model_dir(recipe).parent.mkdir(parents=True)
            model.rename(artifacts.model_dir(recipe))
            ids = write_curated(rows, [png(seed) for seed in range(200)])
            exported(settings, recipe)
            publish(settings, recipe, ids)
            show(f"{what}; {rows:,} rows")
            towers(settings, recipe)
            service()
        finally:
            os.chdir(home)


def exported(settings: Params, recipe: str) -> None:
    sha256 = artifacts.sha256_of(artifacts.model_dir(recipe))
    if artifacts.EXPORT.is_dir() and artifacts.read_json(artifacts.EXPORT / artifacts.EXPORT_CARD)["model_sha256"] == sha256:
        keep_graphs()
        return
    export(settings.export.model_copy(update={"max_recall_lost": 100.0, "sample": 100, "calibration_pictures": 32}), recipe)


def publish(settings: Params, recipe: str, ids: list[str]) -> None:
    dimension = Encoder(artifacts.model_dir(recipe), device="cpu", precision="fp32").dimension
    vectors = np.random.default_rng(0).standard_normal((len(ids), dimension))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    write_table(vectors, ids, {}, recipe, artifacts.sha256_of(artifacts.model_dir(recipe)), settings.search_table)


def towers(settings: Params, recipe: str) -> None:
    encoder = Encoder(artifacts.model_dir(recipe), device="cpu", precision="fp32")
    own = encoder.texts_now(TEXTS)
    torch_time = timed(lambda text: encoder.texts_now([text]), TEXTS)
    show(f"text tower by torch, fp32: {torch_time}")
    card = artifacts.read_json(artifacts.EXPORT / artifacts.EXPORT_CARD)["precisions"]
    (graphs,) = GRAPHS.iterdir()
    full = (graphs / "fp32" / TEXTUAL / GRAPH).stat().st_size
    for precision in ("fp32", "int8"):
        if not (graphs / precision).is_dir():
            show(f"{precision} is withheld: {card[precision].get('withheld')}")
            continue
        onnx = OnnxTowers(graphs / precision)
        cosine = float(np.einsum("td,td->t", own, onnx.texts(TEXTS)).min())
        took = timed(lambda text, onnx=onnx: onnx.texts([text]), TEXTS)
        size = (graphs / precision / TEXTUAL / GRAPH).stat().st_size
        lost = card[precision]["text_recall_lost"]
        said = "not measured" if lost is None else f"{lost:.2f} points"
        show(f"text tower as ONNX {precision}: {took}; {took.over(torch_time)} of torch; {size / full:.2f} × the bytes of fp32;")
        show(f"  lowest cosine {cosine:.5f}; recall@10 lost: {said}")
        if precision == settings.search.towers:
            session = onnx._textual
            tokens = {text: onnx.tokenizer.tokens([text], None) for text in TEXTS}
            name, fixed = session.get_inputs()[0].name, session.get_inputs()[0].shape[1]
            if isinstance(fixed, int):
                tokens = {text: onnx.tokenizer.tokens([text], fixed) for text in TEXTS}
            forward = timed(lambda text, run=session.run, tokens=tokens, name=name: run(None, {name: tokens[text]}), TEXTS)
    query = timed(lambda text: search(text, k=10), TEXTS)
    show(f"a warm search for words: {query}; {query.over(forward)} of the tower's forward ({forward}); wanted: 2")


def service() -> None:
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-m", "assets.service", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[0].rpartition(":")[2])
        for text in TEXTS:
            asked(http.client.HTTPConnection("127.0.0.1", port), text)
        used = psutil.Process(process.pid)
        before, seconds, begun = used.cpu_times(), [], time.perf_counter()

        def client(number: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            for turn in range(REQUESTS):
                start = time.perf_counter()
                asked(connection, TEXTS[(number + turn) % len(TEXTS)])
                seconds.append(time.perf_counter() - start)

        clients = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for each in clients:
            each.start()
        for each in clients:
            each.join()
        took, after, count = time.perf_counter() - begun, used.cpu_times(), CLIENTS * REQUESTS
        spent = (after.user + after.system - before.user - before.system) / count
        assert len(seconds) == count, "a client failed"
        slow = f"p50 {1000 * np.median(seconds):.0f} ms, p99 {1000 * np.percentile(seconds, 99):.0f} ms"
        show(f"{CLIENTS} clients: {count / took:.0f} requests/s, {slow}, {1000 * spent:.1f} ms of the service's processor time a request")
    finally:
        process.terminate()
        process.wait(20)


def asked(connection: http.client.HTTPConnection, text: str) -> Any:
    connection.request("POST", "/api/search", json.dumps({"text": text, "k": 10}), {"content-type": "application/json"})
    answer = connection.getresponse()
    told = json.loads(answer.read())
    assert answer.status == 200, told
    return told


def show(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
