"""Sources at addresses: a real S3 server, and what goes wrong between it and us."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import fsspec
import pytest

from assets import addresses, artifacts, params
from assets.commands import code, source
from assets.errors import Unreachable, UserError
from assets.params import read_params
from assets.pictures.schema import IMAGES_SCHEMA
from assets.pictures.table import read_batches
from assets.source_images.root import check_source
from assets.source_images.stage import make_source_images
from assets.source_images.watched import check_noted, note_addresses, noted
from tests.s3_server import CREDENTIALS, Server
from tests.settings import demo_text
from tests.source_images.same_pictures import CREDIT, KINDS, pictures


@pytest.fixture(autouse=True)
def checkout_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sources_of(*sources: dict[str, Any]) -> params.SourceImages:
    return params.SourceImages.model_validate({"sources": [CREDIT | each for each in sources]})


def read(*sources: dict[str, Any]) -> list[dict[str, Any]]:
    settings = sources_of(*sources)
    note_addresses(settings.sources)
    make_source_images(settings)
    return [row for batch in read_batches(artifacts.SOURCE_IMAGES, IMAGES_SCHEMA.names, 100) for row in batch.to_pylist()]


def put(kind: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The source on this machine, and the same in the bucket under the folder's name."""
    local = KINDS[kind](folder)
    fsspec.filesystem("s3").put(str(folder), f"bucket/{folder.name}", recursive=True)
    there = {key: local[key].replace(str(folder), f"s3://bucket/{folder.name}") for key in ("root", "pictures") if local.get(key)}
    return local, local | there


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_reads_the_same_from_a_bucket(kind, s3, tmp_path):
    """A reader that opens paths alone, or ids that depend on where the folder lies."""
    local, there = put(kind, tmp_path / f"of_{kind}")
    expected = read(local)
    assert len(expected) == 11
    assert read(there) == expected
    assert noted().keys() == {there[key] for key in ("root", "pictures") if there.get(key)}


def test_only_what_is_new_or_changed_is_fetched_and_a_change_is_noted(s3, tmp_path):
    """Each run fetched the whole bucket; or a replaced picture of the same size went unnoticed."""
    _, there = put("folder", tmp_path / "drop")
    before = read(there)
    settings = sources_of(there)
    check_noted(settings.sources)
    store = fsspec.filesystem("s3")
    first, second = "owl/0.png", "owl/1.png"
    store.pipe(f"bucket/drop/{first}", pictures()[second]["picture"])  # 0.png and 1.png have equally many bytes
    store.pipe("bucket/drop/owl/new.png", pictures()["owl/2.png"]["picture"])
    with pytest.raises(UserError, match=r"13 objects, .*; 12 objects, .* before, and not yet noted in data/addresses\.json\. `make code`"):
        make_source_images(settings)
    fetched = s3.asked("GET", ".png")
    after = {row["id"]: row["image"] for row in read(there)}
    assert s3.asked("GET", ".png") - fetched == 2
    assert after == {row["id"]: row["image"] for row in before} | {
        first: pictures()[second]["picture"],
        "owl/new.png": pictures()["owl/2.png"]["picture"],
    }
    assert note_addresses(settings.sources) == [], "equal contents are no change"


def test_an_address_becomes_the_source_by_its_kind_and_dvc_watches_what_is_noted(checkout, s3, tmp_path, capsys):
    """`make demo SOURCE=s3://…` took the address for a missing path; dvc called it up to date whatever came there."""
    put("csv_of_paths", tmp_path / "shop")
    Path("params.yaml").write_text(demo_text(), encoding="utf-8")
    Path("dvc.yaml").write_bytes((checkout / "dvc.yaml").read_bytes())
    assert source.main(["s3://bucket/shop/table.csv/"]) == 0, capsys.readouterr().err
    (written,) = read_params()[0].source_images.sources
    assert (written.kind, written.root, written.pictures) == ("table", "s3://bucket/shop/table.csv", "s3://bucket/shop/files")
    assert code.main(["--sources"]) == 0
    assert "data/addresses.json: s3://bucket/shop/files: 11 objects" in capsys.readouterr().out
    dependencies = artifacts.read_yaml(Path("dvc.yaml"))["stages"]["source_images"]["deps"]
    assert [each for each in dependencies if not each.startswith("assets/")] == ["data/addresses.json"]
    assert code.main(["--check"]) == 0
    assert source.main(["s3://bucket/shop/tables.csv"]) == 1
    assert "s3://bucket/shop/tables.csv is missing. Did you mean s3://bucket/shop/table.csv?" in capsys.readouterr().err
    Path("params.yaml").write_text(demo_text(), encoding="utf-8")
    assert code.main([]) == 0
    assert not artifacts.ADDRESSES.exists() and Path("dvc.yaml").read_bytes() == (checkout / "dvc.yaml").read_bytes()


def image_folder(root: str) -> dict[str, Any]:
    return {"kind": "image_folder", "root": root, "folders": ["label"]}


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("s3://bucket/nothing", r"s3://bucket/nothing is missing\."),
        ("s3://no-such-bucket/pictures", r"s3://no-such-bucket/pictures is missing\. Nor is there s3://no-such-bucket\."),
        ("gs://bucket/pictures", r"gs://bucket/pictures: the package that opens gs:// .* is not installed: .*pip install gcsfs"),
        ("s4://bucket/pictures", r"s4://bucket/pictures: nothing opens s4:// addresses\. Allowed: a path, or an address of s3, gs, az"),
    ],
)
def test_what_is_not_there_is_said_before_anything_runs(root, message, s3):
    with pytest.raises(UserError, match=message):
        check_source(sources_of(image_folder(root)).sources[0])


@pytest.mark.parametrize("root", ["s3://key:secret@bucket/pictures", "https://bucket.example/p?X-Amz-Signature=1", "az://c/p?sv=1&sig=2"])
def test_credentials_in_an_address_are_refused(root):
    with pytest.raises(ValueError, match=r"holds a password or key\. Give credentials in the environment"):
        sources_of(image_folder(root))


def test_other_signs_in_addresses_are_not_taken_for_credentials():
    for root in ("abfs://container@account.dfs.core.windows.net/p", "s3://bucket/a@b:c/d", "C:\\pictures", "pictures/a:b@c"):
        sources_of(image_folder(root))


ASK = """
from assets import addresses
try:
    addresses.exists("s3://bucket/x")
except Exception as error:
    print(type(error).__name__, error)
"""


def asked_with(environment: dict[str, str]) -> str:
    """What another process is told that asks for an object; libraries remember credentials and servers within one."""
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_missing_and_wrong_credentials_and_a_server_that_is_down_are_told_apart(s3: Server):
    """A trace of botocore's, or «check the address, the network and your rights» for each of the three."""
    right = dict(os.environ)
    without = {name: value for name, value in right.items() if name not in CREDENTIALS}
    assert asked_with(without).startswith("UserError s3://bucket/x cannot be read: there are no credentials for it")
    as_text = {"Content-Type": "text/plain"}
    ask = urllib.request.Request(f"{s3.endpoint}/moto-api/reset-auth", b"0", as_text, method="POST")  # from here on it checks who asks
    with urllib.request.urlopen(ask):
        pass
    try:
        assert asked_with(right).startswith("UserError s3://bucket/x may not be read with these credentials")
    finally:
        ask.data = b"1000000"
        with urllib.request.urlopen(ask):
            pass
    down = right | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    assert asked_with(down).startswith("Unreachable s3://bucket/x cannot be reached")


def test_a_store_that_fails_while_pictures_are_read_stops_the_stage(tmp_path):
    """Each picture that the network lost was rejected as broken, and the table was published without them."""
    from tests.s3_server import s3_server

    with s3_server(tmp_path) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        fsspec.filesystem("s3").pipe({f"bucket/p/{number}.png": b"one" for number in range(3)})
        objects = list(addresses.stored_under("s3://bucket/p").values())
        assert list(addresses.read_each([objects[0], objects[0]._replace(address="s3://bucket/p/gone.png")])) == [b"one", b""]
    with pytest.raises(Unreachable, match=r"s3://bucket/p/0\.png cannot be reached"):
        list(addresses.read_each(objects))
    fsspec.get_filesystem_class("s3").clear_instance_cache()
