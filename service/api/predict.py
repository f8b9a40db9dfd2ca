"""POST /predict."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from models.base import Answer
from models.errors import InstanceError
from service import metrics, traces
from service.api.bodies import (
    JSON,
    MULTIPART,
    media_type_of,
    parse_batch,
    parse_files,
    parse_json,
    parse_raw,
    read,
    top_k_of,
    unsupported,
)
from service.api.documentation import predict_body, problems
from service.api.edge import tell
from service.api.problems import CLIENT_GONE, Problem, at
from service.api.routing import Guarded
from service.api.schemas import Contract, PredictRequest
from service.api.service import Service
from service.serving.engine import Answers, Question
from service.store import Prediction

T = TypeVar("T")

DRAWN = 512  # ids that are drawn at once


class Asked(NamedTuple):
    """What a request asks."""

    instances: Sequence[Any]
    pointers: Sequence[str]
    """Where in the body each of them is."""
    top_k: int | None


def routes(service: Service, contract: Contract) -> APIRouter:
    """Return the route."""
    router = APIRouter(tags=["predict"], route_class=Guarded)
    kind = service.model.input
    limits = service.settings.limits

    @router.post(
        "/predict",
        summary="Predict",
        responses={200: {"model": contract.predictions}, **problems(400, 409, 413, 415, 422, 503)},
        openapi_extra=predict_body(service.model),
    )
    async def predict(request: Request) -> Response:
        """Answer every instance by one version of the model, which the answer names."""
        service.serving()  # or there is none to ask
        return await answer(service, request, parse, _written)

    async def parse(request: Request) -> Asked:
        media_type = media_type_of(request)
        if media_type == JSON:
            return asked_in(service, parse_json(contract.predict, await read(request, limits.body_bytes)))
        if media_type in kind.media_types:
            return Asked(parse_raw(kind, await read(request, limits.body_bytes), media_type), [""], top_k_of(request))
        if media_type in kind.batches:
            instances = parse_batch(kind, await read(request, limits.body_bytes), media_type, limits.instances)
            return Asked(instances, in_json(instances), top_k_of(request))
        if media_type == MULTIPART and kind.media_types:
            instances = await parse_files(request, kind, limits)
            return Asked(instances, [f"/{index}" for index in range(len(instances))], top_k_of(request))
        raise unsupported(media_type, [JSON, *kind.media_types, *kind.batches, *([MULTIPART] if kind.media_types else [])])

    return router


async def answer(
    service: Service,
    request: Request,
    parse: Callable[[Request], Awaitable[Asked]],
    write: Callable[[int, list[Answer]], Response],
) -> Response:
    """Answer what a request asks, and keep it for the label that may come; the ids of the answers stand in them.

    `parse` reads the request, `write` makes the response of the version and the answers.
    """
    started = time.perf_counter()
    asked = await parse(request)
    prepared = await service.prepare(asked.instances, asked.pointers)
    metrics.parse_seconds.observe(time.perf_counter() - started)
    answers = await answered(request, service.batcher.submit(Question(prepared, asked.top_k)))
    tell(request, version=answers.version, instances=len(asked.instances))
    started = time.perf_counter()
    response = write(answers.version, _kept(service, asked.instances, answers))
    metrics.serialise_seconds.observe(time.perf_counter() - started)
    response.raw_headers.append((b"model-version", b"%d" % answers.version))
    return response


def asked_in(service: Service, body: PredictRequest) -> Asked:
    """Return what the JSON of a request asks. Raises Problem 422."""
    pointers = in_json(body.instances)
    instances = [parsed(service, *each) for each in zip(body.instances, pointers, strict=True)]
    return Asked(instances, pointers, body.top_k)


def in_json(instances: Sequence[Any]) -> list[str]:
    """Return where in the JSON of a request the instances are."""
    return [f"/instances/{index}" for index in range(len(instances))]


def parsed(service: Service, value: Any, pointer: str) -> Any:
    """Return the instance that a value of the JSON is. Raises Problem 422."""
    try:
        return service.model.input.parse(value)
    except InstanceError as exc:
        raise at(pointer, exc) from exc


async def answered(request: Request, answers: asyncio.Future[T]) -> T:
    """Wait for the answers; withdraw the question when the client goes away."""
    await asyncio.sleep(0)  # a quick batch is computed in the loop's next turn: that is too short to go away in
    if answers.done():
        return answers.result()
    gone = asyncio.ensure_future(request.receive())  # after the body, the next message is the disconnect
    gone.add_done_callback(lambda _: answers.cancel())
    try:
        return await answers
    except asyncio.CancelledError:
        if not gone.done():
            raise
        raise Problem(CLIENT_GONE, "nobody waits for this answer") from None
    finally:
        gone.cancel()


def _kept(service: Service, instances: Sequence[Any], answers: Answers) -> list[Answer]:
    ids, trace = _new_ids(len(instances)), traces.here()
    dump, kept = service.model.input.dump, service.model.head.kept
    service.journal.put(
        [
            Prediction(id, answers.version, dump(instance), to_json(kept(answer)).decode(), trace)
            for id, instance, answer in zip(ids, instances, answers.answers, strict=True)
        ]
    )
    return [{"id": id, **answer} for id, answer in zip(ids, answers.answers, strict=True)]


def _new_ids(count: int) -> list[str]:
    """Return ids that begin with the time, so that the journal's index grows at its end, and that nobody can guess.

    As UUIDv7 has it (RFC 9562), with all of the 80 bits after the milliseconds random.
    """
    milliseconds = f"{time.time_ns() // 1_000_000:012x}"
    return [milliseconds + each for each in islice(_random, count)]


def _drawn() -> Iterator[str]:
    """Yield 80 random bits again and again, in hexadecimal; the system is asked for many at once.

    Each time that it is asked, the interpreter's lock is let go of, and a busy thread keeps it for long.
    """
    while True:
        digits = os.urandom(10 * DRAWN).hex()
        yield from (digits[at : at + 20] for at in range(0, len(digits), 20))


_random = _drawn()


def _written(version: int, predictions: list[Answer]) -> Response:
    return Response(to_json({"model_version": version, "predictions": predictions}), media_type=JSON)
