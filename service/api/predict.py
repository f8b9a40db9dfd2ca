"""POST /predict."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from models.errors import InstanceError
from service.api.bodies import JSON, MULTIPART, media_type_of, parse_files, parse_json, parse_raw, read, top_k_of, unsupported
from service.api.documentation import predict_body, problems
from service.api.problems import CLIENT_GONE, NOT_READY, RETRY_AFTER, Problem, at
from service.api.schemas import Contract
from service.api.service import Service
from service.serving.engine import Answers, Question
from service.store import Prediction

T = TypeVar("T")


def routes(service: Service, contract: Contract) -> APIRouter:
    """Return the route."""
    router = APIRouter(tags=["predict"])
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
        if service.served.now is None:
            raise Problem(NOT_READY, "no version is loaded yet", headers=RETRY_AFTER)
        instances, pointers, top_k = await parse(request)
        prepared = await service.prepare(instances, pointers)
        answers = await answered(request, service.batcher.submit(Question(prepared, top_k)))
        return _response(service, instances, answers)

    async def parse(request: Request) -> tuple[Sequence[Any], Sequence[str], int | None]:
        """Return the instances, where in the body each of them is, and top_k."""
        media_type = media_type_of(request)
        if media_type == JSON:
            body = parse_json(contract.predict, await read(request, limits.body_bytes))
            pointers = [f"/instances/{index}" for index in range(len(body.instances))]
            instances = [parsed(service, *each) for each in zip(body.instances, pointers, strict=True)]
            return instances, pointers, body.top_k
        if media_type in kind.media_types:
            return parse_raw(kind, await read(request, limits.body_bytes), media_type), [""], top_k_of(request)
        if media_type == MULTIPART and kind.media_types:
            instances = await parse_files(request, kind, limits)
            return instances, [f"/{index}" for index in range(len(instances))], top_k_of(request)
        raise unsupported(media_type, [JSON, *kind.media_types, *([MULTIPART] if kind.media_types else [])])

    return router


def parsed(service: Service, value: Any, pointer: str) -> Any:
    """Return the instance that a value of the JSON is. Raises Problem 422."""
    try:
        return service.model.input.parse(value)
    except InstanceError as exc:
        raise at(pointer, exc) from exc


async def answered(request: Request, answers: asyncio.Future[T]) -> T:
    """Wait for the answers; withdraw the question when the client goes away."""
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


def _response(service: Service, instances: Sequence[Any], answers: Answers) -> Response:
    ids = [os.urandom(16).hex() for _ in instances]
    dump, kept = service.model.input.dump, service.model.head.kept
    service.journal.put(
        [
            Prediction(id, answers.version, dump(instance), to_json(kept(answer)).decode())
            for id, instance, answer in zip(ids, instances, answers.answers, strict=True)
        ]
    )
    predictions = [{"id": id, **answer} for id, answer in zip(ids, answers.answers, strict=True)]
    body = to_json({"model_version": answers.version, "predictions": predictions})
    return Response(body, headers={"Model-Version": str(answers.version)}, media_type=JSON)
