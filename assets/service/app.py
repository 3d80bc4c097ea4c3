"""The service: JSON about the published table, thumbnails from it, and the page. Every answer is of one version of the table."""

from __future__ import annotations

import base64
import binascii
import hashlib
import html
import io
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as RoutingError

from assets import artifacts, params
from assets.errors import UserError
from assets.pictures.decoding import BadPicture
from assets.pictures.small import thumbnail
from assets.search_table import judgements
from assets.search_table.cutoff import meaning
from assets.search_table.query import check_unicode, model_of, search, vectors_in
from assets.search_table.query_settings import settings as all_settings
from assets.search_table.query_towers import towers_of
from assets.search_table.table import manifest_of, open_version, quoted
from assets.search_table.versions import read_versions
from assets.service.counts import Counts
from assets.service.guard import Guard

PAGE = Path(__file__).parent
SHOWN = ["id", "class_name", "caption", "captions", "label", "group", "source", "license", "attribution", "split", "width", "height"]
FILES = {"/": ("page.html", "text/html"), "/page.css": ("page.css", "text/css"), "/page.js": ("page.js", "text/javascript")}
COUNTED = ("/", "/health", "/metrics", "/api/search", "/api/embed", "/api/table", "/api/versions", "/api/judgements")
THUMBNAIL = 256  # pixels, the longest side
DOCS = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    '<title>onespace: the API</title><link rel="stylesheet" href="/page.css"><main class="docs"><h1>The API</h1>'
    '<p>As OpenAPI: <a href="/openapi.json">/openapi.json</a>.'
    ' Answers are JSON; what goes wrong is told in "error".</p>{}</main></html>'
)
AT_ONCE = 2  # searches; more would only share the cores
FILTERED_BY = ("source", "split", "group")
MOST_VALUES = 200  # of a column, offered as a filter


class Asked(BaseModel):
    """One query. What is given of text, picture and like is added up; `less` leads away."""

    model_config = ConfigDict(extra="forbid")
    text: Annotated[str, Field(description="words")] | None = None
    picture: Annotated[str, Field(description="an encoded picture file, in base64")] | None = None
    like: Annotated[list[str], Field(max_length=50, description="ids of the table")] = []
    less: Annotated[list[str], Field(max_length=10, description="words to lead away from")] = []
    k: Annotated[int, Field(ge=1)] = 24
    offset: Annotated[int, Field(ge=0)] = 0
    where: str | None = None
    by: Literal["vector", "text", "hybrid"] = "vector"
    cutoff: Annotated[float, Field(ge=-1, le=1)] | Literal["same", "related"] | None = None
    fold: bool = False
    version: Annotated[str, Field(max_length=100)] | Annotated[int, Field(ge=1, lt=2**63)] | None = None


class Embedded(BaseModel):
    model_config = ConfigDict(extra="forbid")
    texts: Annotated[list[str], Field(max_length=256)] = []
    pictures: Annotated[list[str], Field(max_length=64, description="picture files in base64")] = []


class Judged(BaseModel):
    model_config = ConfigDict(extra="forbid")
    query: Asked
    id: Annotated[str, Field(max_length=1000)]
    right: bool
    version: Annotated[int, Field(ge=1, lt=2**63)]


def make_app(own: params.Search) -> Guard:
    """The ASGI application, for the checkout in the working directory."""
    app = FastAPI(title="onespace", description="Search the published table.", docs_url=None, redoc_url=None)
    counts = Counts()
    turn = threading.BoundedSemaphore(AT_ONCE)

    @app.middleware("http")
    async def counted(request: Request, call_next: Callable[..., Any]) -> Response:
        begun = time.perf_counter()
        status = 500
        try:
            answer: Response = await call_next(request)
            status = answer.status_code
            return answer
        finally:
            counts.add(_route(request.url.path), status, time.perf_counter() - begun)

    @app.exception_handler(UserError)
    async def refused(request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(RequestValidationError)
    async def misread(request: Request, error: RequestValidationError) -> JSONResponse:
        problems = [f"{'.'.join(map(str, each['loc'][1:])) or 'the request'}: {each['msg']}" for each in error.errors()[:10]]
        return JSONResponse({"error": f"the request is not understood: {'; '.join(problems)}. /docs describes it."}, 422)

    @app.exception_handler(RoutingError)  # of which FastAPI's own is a kind
    async def absent(request: Request, error: RoutingError) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": f"{type(error).__name__}: the service could not answer this request"}, 500)

    def check(asked: Asked) -> None:
        for name, texts in (("text", [asked.text or ""]), ("less", asked.less), ("like", asked.like), ("where", [asked.where or ""])):
            check_unicode(texts, name)
            longest = max(map(len, texts), default=0)
            if longest > own.max_query_characters:
                raise UserError(
                    f"{name} has {longest} characters; at most {own.max_query_characters} are read (search.max_query_characters)."
                )
        if asked.k + asked.offset > own.max_hits:
            raise UserError(f"k and offset are {asked.k + asked.offset} together; at most {own.max_hits} hits are given (search.max_hits).")

    @app.post("/api/search", summary="The nearest pictures of the table")
    def find(asked: Asked) -> dict[str, Any]:
        check(asked)
        begun = time.perf_counter()
        query: list[Any] = [each for each in (asked.text, _decoded(asked.picture)) if each] + [(words, -1.0) for words in asked.less]
        with turn:
            hits = search(
                query or None,
                asked.k,
                asked.where or None,
                like=list(asked.like) or None,
                by=asked.by,
                cutoff=asked.cutoff,
                fold=asked.fold,
                offset=asked.offset,
                version=asked.version,
            )
        return {
            "version": int(hits.schema.metadata[b"version"]),
            "hits": _hits(hits),
            "notes": _notes(asked, int(hits.schema.metadata[b"version"])),
            "milliseconds": round(1000 * (time.perf_counter() - begun), 1),
        }

    @app.post("/api/embed", summary="Unit-norm vectors of texts, then of pictures")
    def vectors(given: Embedded) -> dict[str, Any]:
        if longest := max((len(text) for text in given.texts if len(text) > own.max_query_characters), default=0):
            raise UserError(f"a text has {longest} characters; at most {own.max_query_characters} are read.")
        with turn:
            dataset = open_version()  # once: a publish in between must not name another model
            found = vectors_in([*given.texts, *filter(None, map(_decoded, given.pictures))], dataset)
        return {"model": model_of(dataset), "vectors": found.tolist()}

    @app.get("/api/table", summary="What a version holds: counts, values to filter by, cutoffs and their meaning")
    def table(version: str | None = None) -> dict[str, Any]:
        return _described(open_version(_checked(version)).version)

    @app.get("/api/versions", summary="The published versions, the visible one first")
    def versions() -> list[dict[str, Any]]:
        there = read_versions(open_version())
        found = [each for each in there if each.publish] or there[-1:]  # something else wrote it: what is visible
        return [
            {"version": each.number, "publish": each.publish, "tags": each.tags, "rows": each.rows, "model": each.model, "time": each.time}
            for each in reversed(found)
        ]

    @app.get("/api/picture/{version}", summary="A small copy of the picture with this id, as WebP", response_class=Response)
    def picture(version: int, key: Annotated[str, Query(alias="id", max_length=1000)]) -> Response:
        if not 1 <= version < 2**63:
            raise UserError(f"there is no version {version}.")
        try:
            data = _small(version, key)
        except BadPicture as error:
            raise HTTPException(404, str(error)) from None
        if data is None:
            raise HTTPException(404, "the table has no picture with this id")
        return Response(data, media_type="image/webp", headers={"cache-control": "private, max-age=86400"})

    @app.post("/api/judgements", summary="Keep what a person says of a hit")
    def judge(judged: Judged) -> dict[str, Any]:
        check(judged.query)
        check_unicode([judged.id], "id")
        dataset = open_version(judged.version)
        if not dataset.count_rows(filter=f"id = {quoted(judged.id)}"):
            raise UserError("the table's version has no picture with this id.")
        query = judged.query.model_dump(exclude_defaults=True, exclude={"k", "offset", "version", "cutoff", "fold"})
        if "picture" in query:
            query["picture"] = hashlib.sha256(_decoded(query["picture"]) or b"").hexdigest()
        line = {"query": query, "id": judged.id, "right": judged.right, "version": judged.version, "model": model_of(dataset)}
        judgements.append(artifacts.JUDGEMENTS, line)
        return {"kept": str(artifacts.JUDGEMENTS)}

    @app.get("/api/judgements", summary="How many hits of each model were called right and wrong")
    def judged() -> dict[str, dict[str, int]]:
        return judgements.summary(artifacts.JUDGEMENTS)

    @app.get("/health", summary="Whether searches can be answered")
    def health() -> JSONResponse:
        try:
            dataset = open_version()
            return JSONResponse({"status": "ok", "version": dataset.version, "rows": dataset.count_rows(), "model": model_of(dataset)})
        except UserError as error:
            return JSONResponse({"status": "no table", "error": str(error)}, 503)

    @app.get("/metrics", summary="Counts in Prometheus' form", response_class=PlainTextResponse)
    def metrics() -> str:
        try:
            rows = open_version().count_rows()
        except UserError:
            rows = 0
        return counts.text(rows)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(_docs(app.openapi()))

    for path, (name, kind) in FILES.items():
        app.get(path, include_in_schema=False)(_file(PAGE / name, kind))
    app.get("/favicon.ico", include_in_schema=False)(lambda: Response(status_code=204))
    return Guard(app, int(own.max_upload_megabytes * 1e6), own.patience_seconds)


def _route(path: str) -> str:
    """What a request is counted as: few names, whatever is asked for."""
    if path.startswith("/api/picture/"):
        return "/api/picture"
    return path if path in COUNTED else "other"


def _file(path: Path, kind: str) -> Callable[[], Response]:
    return lambda: Response(path.read_bytes(), media_type=f"{kind}; charset=utf-8", headers={"cache-control": "no-cache"})


def _checked(version: str | None) -> str | None:
    if version is not None and len(version) > 100:
        raise UserError("no version has so long a name.")
    return version


def _decoded(picture: str | None) -> bytes | None:
    if not picture:
        return None
    try:
        return base64.b64decode(picture, validate=True)
    except (binascii.Error, ValueError):
        raise UserError("the picture is not base64. Send an encoded picture file, such as a PNG or JPEG, in base64.") from None


def _hits(hits: pa.Table) -> list[dict[str, Any]]:
    scores = {"_distance": "cosine", "_score": "score", "_relevance_score": "relevance", "folded": "folded"}
    if "_distance" in hits.column_names:
        number = hits.column_names.index("_distance")
        hits = hits.set_column(number, "_distance", pc.subtract(1.0, pc.cast(hits["_distance"], pa.float64())))
    names = [*SHOWN, *(name for name in scores if name in hits.column_names)]
    return [{scores.get(name, name): value for name, value in row.items()} for row in hits.select(names).to_pylist()]


def _notes(asked: Asked, version: int) -> list[str]:
    """What the reader should know of how the words were read."""
    texts = [text for text in (asked.text, *asked.less) if text]
    if not texts or asked.by == "text":
        return []
    from assets.search_table.query_towers import check_readable

    return check_readable(texts, towers_of(_described(version)["model"], all_settings()))


@lru_cache(maxsize=16)
def _described(version: int) -> dict[str, Any]:
    """A version never changes."""
    dataset = open_version(version)
    calibration = manifest_of(dataset).get("similarity", {})
    columns = dataset.scanner(columns=[*FILTERED_BY]).to_table()
    values = {}
    for name in FILTERED_BY:
        counted = columns[name].value_counts().to_pylist()
        ordered = sorted(each["values"] for each in counted if each["values"] is not None)
        values[name] = ordered[:MOST_VALUES]
    return {
        "version": version,
        "rows": dataset.count_rows(),
        "model": model_of(dataset),
        "values": values,
        "similarity": calibration,
        "meaning": meaning(calibration),
    }


@lru_cache(maxsize=4096)  # some 10 KB each
def _small(version: int, key: str) -> bytes | None:
    found = open_version(version).scanner(columns=["image"], filter=f"id = {quoted(key)}", limit=1).to_table()
    if not len(found):
        return None
    buffer = io.BytesIO()
    try:
        thumbnail(found["image"][0].as_py(), THUMBNAIL).save(buffer, "WEBP", quality=86)
    except (TypeError, OSError) as error:  # something else wrote it: none, or a part of one
        raise BadPicture("undecodable", "the table has no whole picture here") from error
    return buffer.getvalue()


def _docs(description: dict[str, Any]) -> str:
    """The API as a page that needs nothing from elsewhere."""
    parts = []
    for path, methods in description["paths"].items():
        for method, told in methods.items():
            body = told.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {}).get("$ref", "")
            fields = description["components"]["schemas"].get(body.rpartition("/")[2], {}).get("properties", {})
            described = [(html.escape(name), html.escape(str(each.get("description", "")))) for name, each in fields.items()]
            rows = "".join(f"<tr><td><code>{name}</code><td>{meant}" for name, meant in described)
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2><p>{html.escape(told.get('summary', ''))}</p>")
            parts.append(f"<table>{rows}</table>" if rows else "")
    return DOCS.format("".join(parts))
