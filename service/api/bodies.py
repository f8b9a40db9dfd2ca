"""Request bodies: read within the limit, and turned into what the routes work on."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any, TypeVar

from fastapi import Request
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from models.errors import InstanceError, Unreadable
from models.inputs import InputKind
from service.api.problems import INVALID, MALFORMED, TOO_LARGE, UNSUPPORTED, Fault, Problem, at, invalid_json
from service.settings import LimitSettings

T = TypeVar("T")

JSON = "application/json"
MULTIPART = "multipart/form-data"

LONGEST_WAIT = 30.0  # seconds, of `Prefer: wait`


def media_type_of(request: Request) -> str:
    """Return the body's media type without its parameters; JSON where none is named."""
    return request.headers.get("content-type", JSON).partition(";")[0].strip().lower()


def unsupported(media_type: str, allowed: Sequence[str]) -> Problem:
    """Return the problem of a media type that is not taken."""
    return Problem(UNSUPPORTED, f"{media_type!r} is not one of {', '.join(allowed)}")


async def read(request: Request, limit: int) -> bytes:
    """Read the body. Raises Problem 413 over the limit, before all of it has come."""
    body, more = await _chunk(request, limit, 0)
    if more:  # an asynchronous generator costs more than all else here, and mostly the body comes in one
        body += b"".join([chunk async for chunk in _chunks(request, limit, len(body))])
    return body


async def read_json(request: Request, limit: int) -> bytes:
    """Read the body of a route that takes JSON only. Raises Problem 413 or 415."""
    if (media_type := media_type_of(request)) != JSON:
        raise unsupported(media_type, [JSON])
    return await read(request, limit)


async def _chunks(request: Request, limit: int, size: int = 0) -> AsyncGenerator[bytes, None]:
    """Yield a body, or what comes after its first `size` bytes. Raises Problem 413 over the limit."""
    more = True
    while more:
        chunk, more = await _chunk(request, limit, size)
        size += len(chunk)
        yield chunk


async def _chunk(request: Request, limit: int, size: int) -> tuple[bytes, bool]:
    """Return what of a body comes after its first `size` bytes, and whether more does. Raises Problem 413 over the limit."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    chunk: bytes = message.get("body", b"")
    more: bool = message.get("more_body", False)
    if size + len(chunk) > limit or (more and _declared(request) > limit):
        raise Problem(TOO_LARGE, f"the body may have {limit} bytes")
    return chunk, more


def _declared(request: Request) -> int:
    """Return how many bytes a body is said to have, 0 where nothing is said."""
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isdecimal() else 0


def parse_json(adapter: TypeAdapter[T], body: bytes) -> T:
    """Validate a JSON body. Raises Problem 400 or 422."""
    # pydantic takes NaN and Infinity, which JSON does not have: only a body with these letters is looked at twice.
    if b"NaN" in body or b"Infinity" in body:
        try:
            from_json(body, allow_inf_nan=False)
        except ValueError as exc:
            raise Problem(MALFORMED, f"Invalid JSON: {exc}") from exc
    try:
        return adapter.validate_json(body)
    except ValidationError as exc:
        raise invalid_json(exc, body) from exc


async def parse_files(request: Request, kind: InputKind, limits: LimitSettings) -> list[Any]:
    """Return the instances of a multipart body, one a file. Raises Problem."""
    parser = _InMemoryParser(request.headers, _chunks(request, limits.body_bytes), max_files=limits.instances, max_fields=0)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeDecodeError) as exc:
        raise Problem(MALFORMED, f"not a readable multipart body: {getattr(exc, 'message', exc)}") from exc
    files = [file for _, file in form.multi_items() if isinstance(file, UploadFile)]
    if not files:
        raise Problem(INVALID, "the multipart body has no file")
    return [_instance(kind, await file.read(), file.content_type or "", f"/{index}") for index, file in enumerate(files)]


def parse_raw(kind: InputKind, body: bytes, media_type: str) -> list[Any]:
    """Return the one instance of a body that is itself an instance. Raises Problem 422."""
    return [_instance(kind, body, media_type, "")]


def parse_batch(kind: InputKind, body: bytes, media_type: str, most: int) -> list[Any]:
    """Return the instances of a body that is itself a batch of them. Raises Problem as for JSON that says the same."""
    try:
        return kind.batches[media_type](body, most)
    except Unreadable as exc:
        raise at(exc.pointer and f"/instances{exc.pointer}", exc) from exc
    except InstanceError as exc:
        raise at(f"/instances{exc.pointer}", exc) from exc


def _instance(kind: InputKind, body: bytes, media_type: str, pointer: str) -> Any:
    if media_type not in kind.media_types:
        raise unsupported(media_type, kind.media_types)
    try:
        return kind.parse_body(body, media_type)
    except InstanceError as exc:
        raise at(pointer, exc) from exc


class _InMemoryParser(MultiPartParser):
    """Keeps files in memory: the body's limit bounds them, and the root file system may be read-only."""

    spool_max_size = 2**62


def top_k_of(request: Request) -> int | None:
    """Return the query's top_k. Raises Problem 422."""
    text = request.query_params.get("top_k")
    if text is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise Problem(INVALID, "top_k is a whole number from 1", faults=[Fault(pointer="", detail="top_k in the query")])
    return int(text)


def wait_of(request: Request) -> float | None:
    """Return the seconds of `Prefer: wait=S` (RFC 7240), cut to the longest; a preference that makes no sense is ignored."""
    match = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?(?=$|[,;\s])", request.headers.get("prefer", ""), re.I)
    return min(float(match[1]), LONGEST_WAIT) if match else None
