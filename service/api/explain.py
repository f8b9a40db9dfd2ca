"""POST /explain."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from models.base import Label
from models.errors import InstanceError, LabelError, NotExplainable
from models.explanation import explain
from service.api.bodies import JSON, media_type_of, parse_json, parse_raw, read, unsupported
from service.api.documentation import explain_answer, explain_body, problems
from service.api.feedback import join
from service.api.predict import answered, parsed
from service.api.problems import INVALID, NOT_EXPLAINED, NOT_READY, RETRY_AFTER, UNKNOWN_PREDICTION, Fault, Problem, at
from service.api.routing import Guarded
from service.api.schemas import Contract, ExplainRequest
from service.api.service import Service
from service.serving.engine import NotReady
from service.serving.examiner import Spare
from service.settings import ExplanationSettings

PNG = "image/png"


@dataclass(frozen=True, slots=True)
class _Question:
    """An instance, where in the request it is, and the versions that should explain it, the best first."""

    instance: Any
    pointer: str
    label: Label | None
    versions: tuple[int, ...]
    drawn: bool


def routes(service: Service, contract: Contract) -> APIRouter:
    """Return the route."""
    router = APIRouter(tags=["predict"], route_class=Guarded)
    kind = service.model.input
    limits = service.settings.limits

    @router.post(
        "/explain",
        summary="Explain a prediction",
        responses={200: explain_answer(service.model), **problems(400, 409, 413, 415, 422, 501, 503)},
        openapi_extra=explain_body(service.model),
    )
    async def explain_one(request: Request) -> Response:
        """Share out over the parts of an instance what the model says of a label, by default the predicted one.

        The attributions are Shapley values: they add up to `value - base_value`. By prediction id the version that made the
        prediction explains it while its checkpoint is kept, else the one that is served.
        """
        serving = service.served.now
        if serving is None:
            raise Problem(NOT_READY, "no version is loaded yet", headers=RETRY_AFTER)
        drawn = PNG in request.headers.get("accept", "").lower()
        question = await parse(request, serving.version.version, drawn)
        job = partial(_examine, question=question, settings=service.settings.explanations)
        return await answered(request, asyncio.wrap_future(service.examiner.submit(job)))

    async def parse(request: Request, served: int, drawn: bool) -> _Question:
        media_type = media_type_of(request)
        if media_type == JSON:
            sent = parse_json(contract.explain, await read(request, limits.body_bytes))
            _check_source(sent)
            if sent.prediction_id is None:
                return _Question(parsed(service, sent.instance, "/instance"), "/instance", sent.label, (served,), drawn)
            found = (await join(service, [sent.prediction_id])).get(sent.prediction_id)
            if found is None:
                raise _unknown_prediction()
            return _Question(kind.load(found.instance), "/prediction_id", sent.label, (found.version, served), drawn)
        if media_type in kind.media_types:
            (instance,) = parse_raw(kind, await read(request, limits.body_bytes), media_type)
            return _Question(instance, "", request.query_params.get("label"), (served,), drawn)
        raise unsupported(media_type, [JSON, *kind.media_types])

    return router


def _examine(spare: Spare, *, question: _Question, settings: ExplanationSettings) -> Response:
    """Return the answer, as JSON or as a picture. Raises Problem and NotReady."""
    version, model = spare.take_first(question.versions)
    if not model.head.ready:
        raise NotReady
    try:
        label = None if question.label is None else model.head.parse_label(question.label)
        budget = {"evaluations": settings.evaluations, "batch": settings.batch}
        found = explain(model, question.instance, label, between=spare.check, **budget)
    except InstanceError as exc:
        raise at(question.pointer, exc) from exc
    except LabelError as exc:
        raise at("/label", exc) from exc
    except NotExplainable as exc:
        raise Problem(NOT_EXPLAINED, str(exc)) from exc
    attributions = found.attributions
    values = attributions.values.tolist()
    headers = {"Model-Version": str(version)}
    if question.drawn and found.parts.drawn is not None:
        return Response(found.parts.drawn(values), headers=headers, media_type=PNG)
    answer = {
        "model_version": version,
        **({} if found.label is None else {"label": found.label}),
        "explained": model.head.explains,
        "value": attributions.explained,
        "base_value": attributions.base,
        "baseline": found.parts.baseline,
        "method": attributions.method,
        "evaluations": attributions.evaluations,
        "attributions": found.parts.shaped(values),
    }
    return Response(to_json(answer), headers=headers, media_type=JSON)


def _check_source(sent: ExplainRequest) -> None:
    if (sent.prediction_id is None) == (sent.instance is None):
        detail = "give either prediction_id or instance"
        raise Problem(INVALID, f"the body: {detail}", faults=[Fault(pointer="", detail=detail)])


def _unknown_prediction() -> Problem:
    detail = "the prediction is unknown or has expired; send the instance instead"
    fault = Fault(pointer="/prediction_id", detail=detail)
    return Problem(UNKNOWN_PREDICTION, f"/prediction_id: {detail}", faults=[fault])
