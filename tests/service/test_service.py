"""The service as its users meet it: a real process on 127.0.0.1, with a published table of two versions."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import random
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assets import artifacts
from assets.errors import UserError
from assets.params import read_params
from assets.search_table import judgements, open_table, search
from assets.search_table.stage import publish
from assets.search_table.table import open_version
from assets.search_table.versions import open_dataset, read_versions
from tests import chromium
from tests.search_table.conftest import RECIPE, curated_rows, make_workplace, retrain, write_curated

CHECKOUT = Path(__file__).resolve().parents[2]


class Service:
    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port

    def ask(self, path: str, body: Any = None, *, raw: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """(status, JSON or text)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        given = {"content-type": "application/json"} | (headers or {})
        with contextlib.closing(connection):
            connection.request("GET" if data is None else "POST", path, data, given)
            answer = connection.getresponse()
            text = answer.read()
        if "json" in answer.headers.get("content-type", ""):
            return answer.status, json.loads(text)
        return answer.status, text

    def ids(self, **asked: Any) -> list[str]:
        status, told = self.ask("/api/search", asked)
        assert status == 200, told
        return [hit["id"] for hit in told["hits"]]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Iterator[Service]:
    from tests.models import write_model

    root = tmp_path_factory.mktemp("service")
    write_model(root / "model")
    (root / "place").mkdir()
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_workplace(root / "place", checkout, root / "model", monkeypatch)
        text = Path("params.yaml").read_text()
        text = text.replace("patience_seconds: 20", "patience_seconds: 2").replace("max_upload_megabytes: 20", "max_upload_megabytes: 1")
        Path("params.yaml").write_text(text)
        publish(read_params()[0].search_table, RECIPE)
        write_curated(curated_rows(per_class=8))
        publish(read_params()[0].search_table, RECIPE)
        environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "assets.service", "--port", "0"]
        errors = (root / "errors").open("w")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()
            assert address, (root / "errors").read_text()
            yield Service(root / "place", int(address[0].rpartition(":")[2]))
            assert process.poll() is None, "it must be answering to the end"
        finally:
            process.terminate()
            process.wait(20)
            process.stdout.close()
            errors.close()
    assert "Traceback" not in (root / "errors").read_text()


@pytest.fixture(autouse=True)
def _in_place(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(service.folder)


def test_answers_are_those_of_search(service):
    assert service.ids(text="a red heart", k=7, offset=2) == search("a red heart", k=7, offset=2)["id"].to_pylist()
    assert (
        service.ids(like=["vendor2/1"], where="split = 'train'", k=5)
        == search(like="vendor2/1", where="split = 'train'", k=5)["id"].to_pylist()
    )
    picture = search("a red heart", k=1)["image"][0].as_py()
    sent = base64.b64encode(picture).decode()
    assert service.ids(picture=sent, k=3) == search(picture, k=3)["id"].to_pylist()
    both = search([picture, ("a sailboat", -1.0)], k=3)["id"].to_pylist()
    assert service.ids(picture=sent, less=["a sailboat"], k=3) == both
    assert service.ids(text="dusk", by="hybrid", k=1) == ["b.png"]
    assert len(service.ids(text="a red heart", version="publish-0001", k=100)) == 26
    status, told = service.ask("/api/embed", {"texts": ["a red heart"], "pictures": [sent]})
    assert status == 200
    assert [len(vector) for vector in told["vectors"]] == [16, 16]
    status, told = service.ask("/api/search", {"text": "a red heart", "k": 2})
    assert set(told) == {"version", "hits", "notes", "milliseconds"}
    assert told["hits"][0]["cosine"] == pytest.approx(1 - search("a red heart", k=1)["_distance"][0].as_py(), abs=1e-5)


def test_what_else_is_served(service):
    assert service.ask("/health")[1]["status"] == "ok"
    status, told = service.ask("/api/table")
    assert (status, told["rows"]) == (200, 34)
    assert told["values"]["split"] == ["library", "test", "train", "validation"]
    versions = service.ask("/api/versions")[1]
    assert [each["publish"] for each in versions] == ["publish-0002", "publish-0001"]
    status, picture = service.ask(f"/api/picture/{versions[0]['version']}?id=vendor2/1")
    assert (status, picture[:4], picture[8:12]) == (200, b"RIFF", b"WEBP")
    assert service.ask(f"/api/picture/{versions[0]['version']}?id=absent")[0] == 404
    assert "/api/search" in service.ask("/openapi.json")[1]["paths"]
    assert b"lead away from" in service.ask("/docs")[1]
    status, text = service.ask("/metrics")
    assert b'onespace_requests_total{route="/api/search",status="200"}' in text
    assert b"onespace_table_rows 34" in text


def test_judgements_are_kept_in_a_form_that_others_read(service):
    version = service.ask("/api/versions")[1][0]["version"]
    asked = {"text": "a red heart", "where": "width = 48", "k": 5}
    for right in (False, True):
        assert service.ask("/api/judgements", {"query": asked, "id": "vendor2/1", "right": right, "version": version})[0] == 200
    (kept,) = [each for each in judgements.read(artifacts.JUDGEMENTS) if each["id"] == "vendor2/1"]
    assert (kept["right"], kept["query"]) == (True, {"text": "a red heart", "where": "width = 48"})
    assert kept["model"].startswith("mcip_rea@")
    assert service.ask("/api/judgements")[1][kept["model"]]["right"] >= 1
    assert service.ask("/api/judgements", {"query": asked, "id": "absent", "right": True, "version": version})[0] == 400
    with artifacts.JUDGEMENTS.open("a") as file:
        file.write('{"half a li')
    assert kept in list(judgements.read(artifacts.JUDGEMENTS))
    artifacts.JUDGEMENTS.unlink()


def test_a_disk_that_takes_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="was not kept"):
        judgements.append(tmp_path / "file" / "judgements.jsonl", {"id": "x"})


SQL = [
    "'; DROP TABLE images; --",
    "1=1 OR (SELECT 1)",
    "id IN (SELECT id FROM images)",
    "read_text('/etc/passwd') = 'x'",
    "(" * 1500,
    "\x00",
    "width = " + "9" * 500,
]


PATHS = [
    "/api/picture/1?id=%00",
    "/api/picture/99999999999999999999?id=x",
    "/api/picture/-1?id=x",
    "/api/picture/1?id=..%2f..%2fparams.yaml",
    "/../params.yaml",
    "/api/picture/1?id='%20OR%20'1'='1",
    "/api/table?version=../x",
    "/api/table?version=" + "9" * 99,
    "/page.css/../../app.py",
]


def hostile(number: int) -> tuple[str, bytes]:
    """The request with that number: (path, body)."""
    draw = random.Random(number)
    fields: dict[str, Any] = {}
    for name in ("text", "picture", "like", "less", "k", "offset", "where", "by", "cutoff", "fold", "version", "colour"):
        if draw.random() < 0.4:
            fields[name] = draw.choice(
                [None, True, -1, 10**30, 1.5, "", "x" * 5000, "\ud800"[:0] + "\u202e猫", [], {}, [[]], {"$gt": 1}, [None] * 3, *SQL]
            )
    body = json.dumps(fields).encode()
    mode = number % 8
    if mode == 0:
        body = bytes(draw.randrange(256) for _ in range(draw.randrange(200)))
    if mode == 1:
        body = body[: draw.randrange(len(body))] + draw.choice([b"}", b"NaN", b"\xff\xfe", b""])
    if mode == 2:
        body = b"[" * draw.randrange(1, 20_000)
    if mode == 3:
        body = json.dumps(
            {"text": draw.choice(SQL), "where": draw.choice(SQL), "like": [draw.choice(SQL)], "version": draw.choice(SQL)}
        ).encode()
    if mode == 4:
        header = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"\x7f\xff\xff\xff" * 2 + b"\x08\x02\0\0\0"
        body = json.dumps({"picture": base64.b64encode(header + bytes(draw.randrange(256) for _ in range(50))).decode()}).encode()
    if mode == 5:
        asked = {"text": draw.choice(SQL), "less": [draw.choice(SQL)], "where": draw.choice(["", *SQL])}
        judged = {"query": asked, "id": draw.choice(SQL), "right": True, "version": draw.choice([2, 3, 10**18])}
        return "/api/judgements", json.dumps(judged).encode()
    if mode == 6:
        return "/api/embed", json.dumps({"texts": draw.sample(SQL, 3), "pictures": draw.choice([[], [draw.choice(SQL)]])}).encode()
    path = draw.choice(["/api/search", "/api/search", "/api/search", "/api/embed", "/api/judgements", "/api/absent", "/api/search?%00=%ff"])
    return path, body


def test_two_hundred_hostile_requests(service):
    """One broke the process, wrote somewhere, or got a stack trace for an answer."""
    before = [(version.number, version.rows) for version in read_versions(open_dataset())]
    rows = open_table().to_arrow()
    for number in range(200):
        path, body = hostile(number)
        status, told = service.ask(path, raw=body)
        assert status in (200, 400, 404, 405, 413, 422), (number, path, body[:200], status, told)
        assert "Traceback" not in str(told)
    for path in PATHS:
        status, told = service.ask(path)
        assert status in (400, 404, 422), (path, status, told)
    assert service.ask("/health")[1]["status"] == "ok"
    assert [(version.number, version.rows) for version in read_versions(open_dataset())] == before
    assert open_table().to_arrow().equals(rows)
    assert not artifacts.JUDGEMENTS.exists()


def test_only_its_own_page_may_ask(service):
    """A page of another site let the reader's browser write judgements, or read the table by a name bound to this machine."""
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}, {"origin": "null"}):
        assert service.ask("/api/search", {"text": "x"}, headers=headers)[0] == 403
    own = f"http://127.0.0.1:{service.port}"
    assert service.ask("/api/search", {"text": "a red heart", "k": 1}, headers={"origin": own})[0] == 200


def test_uploads_and_slow_clients_do_not_take_it_down(service):
    """1 GB filled the memory; clients that stop half-way kept all others waiting."""

    def opened(head: str) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", service.port), timeout=30)
        connection.sendall(f"POST /api/search HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\n{head}\r\n".encode())
        return connection

    slow = [opened("Content-Length: 100\r\n") for _ in range(20)] + [
        socket.create_connection(("127.0.0.1", service.port)) for _ in range(20)
    ]
    dripping = opened("Content-Length: 100\r\n")
    told: list[bytes] = []

    def drip() -> None:
        while not select.select([dripping], [], [], 0.5)[0]:
            dripping.sendall(b"x")
        told.append(dripping.recv(200))

    dripper = threading.Thread(target=drip)
    dripper.start()
    giant = opened(f"Content-Length: {10**9}\r\n")
    assert b" 413 " in giant.recv(200)
    chunked = opened("Transfer-Encoding: chunked\r\n")
    try:
        for _ in range(1000):  # 1 GB, as long as it takes it
            chunked.sendall(b"100000\r\n" + b"x" * 2**20 + b"\r\n")
    except OSError:
        pass
    begun = time.monotonic()
    assert len(service.ids(text="a red heart", k=3)) == 3
    assert time.monotonic() - begun < 10
    assert b" 408 " in slow[0].recv(200)
    dripper.join(30)
    assert b" 408 " in told[0], "a byte now and then kept a place for as long as it liked"
    for connection in (*slow, dripping, giant, chunked):
        connection.close()


def test_who_never_ends_the_headers_is_cut_off(service):
    """Half a header, or none, kept a place for as long as it liked; the next request of a connection as well."""
    whole = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\n\r\n".encode()

    def answer(connection: socket.socket) -> bytes:
        told = b""
        while b"}" not in told:
            told += connection.recv(4096)
        return told

    waiting = [socket.create_connection(("127.0.0.1", service.port), timeout=30) for _ in range(3)]
    waiting[1].sendall(whole[:20])
    waiting[2].sendall(whole)
    assert b" 200 " in answer(waiting[2])
    waiting[2].sendall(whole[:20])
    for connection in waiting:
        assert connection.recv(4096) == b"", "closed"
        connection.close()
    again = socket.create_connection(("127.0.0.1", service.port), timeout=30)
    for _ in range(3):
        again.sendall(whole[:20])
        time.sleep(0.3)
        again.sendall(whole[20:])
        assert b" 200 " in answer(again), "a slow one is still answered"
    again.close()


def test_what_goes_wrong_is_always_told_in_error(service):
    version = service.ask("/health")[1]["version"]
    for path, status in (("/nowhere", 404), ("/api/search", 405), (f"/api/picture/{version}?id=nowhere", 404)):
        answered, told = service.ask(path)
        assert (answered, set(told)) == (status, {"error"})
    half = ({"text": "\ud800"}, {"like": ["\ud800"]}, {"text": "a", "less": ["\ud800"]})
    for asked in (*half, {"text": "love", "where": "not " * 40 + "width=1"}):
        answered, told = service.ask("/api/search", raw=json.dumps(asked).encode())
        assert answered == 400 and set(told) == {"error"}, told
    judged = {"query": {"text": "love"}, "id": "\ud800", "right": True, "version": version}
    assert service.ask("/api/judgements", judged)[0] in (400, 422)
    for more in ({"fold": True}, {"by": "hybrid"}):
        assert service.ids(text="love", where="source = 'nowhere'", **more) == []


def test_several_clients_at_once_get_whole_answers(service):
    wanted, wrong = service.ids(text="a red heart", k=5), []

    def client() -> None:
        for _ in range(5):
            if service.ids(text="a red heart", k=5) != wanted:
                wrong.append(1)

    clients = [threading.Thread(target=client) for _ in range(8)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    assert not wrong


def test_a_port_in_use_and_a_missing_table(service, tmp_path, monkeypatch):
    from assets.service.__main__ import main

    run = subprocess.run(
        [sys.executable, "-m", "assets.service", "--port", str(service.port)],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "cannot be used: Address already in use" in run.stderr
    assert "PORT=" in run.stderr
    shutil.copy2("params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1


@pytest.fixture(scope="module")
def window(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.page(tmp_path_factory.mktemp("browser"), width=1200, height=900) as page:
        yield page


def until(page: chromium.Page, script: str) -> Any:
    deadline = time.monotonic() + 30
    while not (found := page.evaluate(script)):
        assert time.monotonic() < deadline, f"never true: {script}\n{page.text()}"
        time.sleep(0.05)
    return found


HITS = "[...document.querySelectorAll('section .hit')].map(e => e.dataset.id)"


@chromium.needed
def test_the_page_in_a_real_browser(service, window, tmp_path):
    """Words, a dropped picture, cutoff, filter, more like this, ✓, and two versions side by side; nothing goes wrong in the console."""
    page = window
    page.open(f"http://127.0.0.1:{service.port}/")
    until(page, "document.querySelectorAll('#version-a option').length === 2 && document.querySelectorAll('#source option').length > 2")
    page.evaluate("document.querySelector('#text').focus()")
    page.call("Input.insertText", text="a red heart")
    page.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    assert until(page, f"{HITS}.length && {HITS}") == service.ids(text="a red heart", k=24)
    until(page, "[...document.querySelectorAll('.hit img')].slice(0, 6).every(e => e.complete && e.naturalWidth > 0)")

    page.evaluate("document.querySelector('.hit button.right').click()")
    until(page, "document.querySelector('.hit').classList.contains('right')")
    assert next(iter(judgements.read(artifacts.JUDGEMENTS)))["query"]["text"] == "a red heart"

    page.evaluate("document.querySelector('details').open = true; document.querySelector('#split').value = 'test';"
                  " document.querySelector('#split').dispatchEvent(new Event('change'))")  # fmt: skip
    wanted = service.ids(text="a red heart", k=24, where="split = 'test'")
    until(page, f"JSON.stringify({HITS}) === {json.dumps(json.dumps(wanted, separators=(',', ':')))}")

    cosine = page.evaluate("Number(document.querySelectorAll('.hit')[2].dataset.cosine)")
    page.evaluate(f"document.querySelector('#cutoff').step = 'any'; document.querySelector('#cutoff').value = {cosine - 1e-5};"
                  " for (const kind of ['input', 'change']) document.querySelector('#cutoff').dispatchEvent(new Event(kind))")  # fmt: skip
    until(page, f"{HITS}.length === 3")
    page.evaluate("document.querySelector('[data-cutoff=none]').click(); document.querySelector('#split').value = ''")
    page.evaluate("document.querySelector('#split').dispatchEvent(new Event('change'))")
    until(page, f"{HITS}.length === 24")

    first = page.evaluate(f"{HITS}[0]")
    page.evaluate("document.querySelector('.hit button.like').click()")
    wanted = service.ids(like=[first], k=24)
    until(page, f"JSON.stringify({HITS}) === {json.dumps(json.dumps(wanted, separators=(',', ':')))}")
    assert first in page.evaluate("document.querySelector('#chosen').innerText")

    row = open_table().search().where("id = 'vendor2/1'").limit(1).to_list()[0]
    sent = base64.b64encode(row["image"]).decode()
    page.evaluate(
        f"(() => {{ const bytes = Uint8Array.from(atob('{sent}'), c => c.charCodeAt(0)); const carried = new DataTransfer();"
        " carried.items.add(new File([bytes], 'dropped.png', {type: 'image/png'}));"
        " document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: carried, bubbles: true, cancelable: true})); })()"
    )
    until(page, f"{HITS}[0] === 'vendor2/1'")
    assert "dropped.png" in page.evaluate("document.querySelector('#chosen').innerText")

    page.evaluate(
        "document.querySelector('#version-b').selectedIndex = 2; document.querySelector('#version-b').dispatchEvent(new Event('change'))"
    )
    until(page, "document.querySelectorAll('#results.two section').length === 2")
    assert "publish-0001" in page.text()
    page.picture(tmp_path / "desktop.png")

    page.call("Emulation.setDeviceMetricsOverride", width=375, height=800, deviceScaleFactor=2, mobile=True)
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    until(page, "document.documentElement.clientWidth <= 375")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375, "a phone must not scroll sideways"
    page.picture(tmp_path / "phone.png")
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, select, img')]"
        ".filter(e => !(e.ariaLabel || e.tagName === 'IMG' && e.hasAttribute('alt')"
        " || e.closest('label')?.innerText.trim() || e.innerText.trim())).map(e => e.outerHTML)"
    )
    assert unnamed == [], "a screen reader must have a name for each"
    page.evaluate("document.querySelector('#text').value = 'a heart'; document.querySelector('#where').value = 'colour = 1'")
    page.evaluate("document.querySelector('#ask').requestSubmit()")
    page.wait_for("there is no column 'colour'")
    assert [each for each in page.complaints if "400" not in each] == []
    artifacts.JUDGEMENTS.unlink()


READER = """
import json, pathlib, time
from assets.search_table import search
seen, reads = {}, 0
while not pathlib.Path("stop").exists():
    hits = search("a red heart", k=50)
    found = [hits["id"].to_pylist(), sorted(set(hits["model"].to_pylist())), [round(x, 4) for x in hits["_distance"].to_pylist()]]
    answers = seen.setdefault(hits.schema.metadata[b"version"].decode(), [])
    if found not in answers:
        answers.append(found)
    reads += 1
    pathlib.Path("reading").touch()
    time.sleep(0.05)  # leave the others some of the cores
print(json.dumps({"seen": seen, "reads": reads}))
"""


def test_readers_throughout_two_publishes_get_no_answer_of_two_models(service):
    """A query embedded by the new model was compared with the old one's vectors, or /api/embed named a model that had not made its vectors.

    The last test of this module: it publishes.
    """
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    reader = subprocess.Popen([sys.executable, "-c", READER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    answers: list[Any] = []
    vectors: dict[str, list[Any]] = {}
    stop = threading.Event()

    def client() -> None:
        while not stop.is_set():
            answers.append(service.ask("/api/search", {"text": "a red heart", "k": 50}))
            status, told = service.ask("/api/embed", {"texts": ["a red heart"]})
            vectors.setdefault(told["model"] if status == 200 else str(told), []).append(told.get("vectors"))
            time.sleep(0.05)

    clients = [threading.Thread(target=client) for _ in range(2)]
    for each in clients:
        each.start()
    try:
        while not Path("reading").exists():
            assert reader.poll() is None, reader.communicate()
            time.sleep(0.05)
        for per_class in (7, 9):
            retrain(0.2)
            write_curated(curated_rows(per_class=per_class))
            publish(read_params()[0].search_table, RECIPE)
            counted = len(answers)
            while len(answers) < counted + 3:  # some of the new version, too
                time.sleep(0.02)
        time.sleep(0.5)
    finally:
        stop.set()
        Path("stop").touch()
        for each in clients:
            each.join()
        out, err = reader.communicate(timeout=60)
    assert reader.returncode == 0, err
    right = {}
    for number in {each.number for each in read_versions(open_dataset())}:
        hits = search("a red heart", k=50, version=number)
        right[str(number)] = [hits["id"].to_pylist(), sorted(set(hits["model"].to_pylist())), hits["_distance"].to_pylist()]
    seen = json.loads(out)["seen"]
    assert len(seen) >= 2 and json.loads(out)["reads"] > 5
    for number, each in seen.items():
        for ids, models, distances in each:
            assert (ids, models) == tuple(right[number][:2])
            assert len(models) == 1 and distances == pytest.approx(right[number][2], abs=2e-4)
    told = {}
    for status, answer in answers:
        assert status == 200, answer
        told.setdefault(str(answer["version"]), []).append(answer["hits"])
    assert len(told) == 3, "the service answered from the old version, and from both new ones"
    for number, each in told.items():
        for hits in each:
            assert [hit["id"] for hit in hits] == right[number][0]
            assert [1 - hit["cosine"] for hit in hits] == pytest.approx(right[number][2], abs=2e-4)
    model_of_version = {models[0]: number for number, (_, models, _) in right.items()}
    assert set(vectors) <= set(model_of_version) and len(vectors) >= 2
    for model, found in vectors.items():
        hits = search("a red heart", k=50, version=int(model_of_version[model]))
        first = open_version(int(model_of_version[model])).scanner(columns=["vector"], filter=f"id = '{hits['id'][0].as_py()}'").to_table()
        for each in found:
            assert 1 - float(np.dot(each[0], first["vector"][0].as_py())) == pytest.approx(hits["_distance"][0].as_py(), abs=1e-4)
