"""The model that is served, and its versions."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from service.api.bodies import JSON
from service.api.documentation import problems
from service.api.predict import answered
from service.api.problems import CHECKPOINT_GONE, NOT_FOUND, Problem
from service.api.routing import Guarded
from service.api.schemas import MOST_LISTED, Comparison, ModelState, VersionDetails, VersionPage, VersionSummary
from service.api.service import Service
from service.position import Position
from service.serving import comparison
from service.serving.comparison import Window
from service.serving.served import Serving
from service.store import CorruptCheckpoint, Version

MOST_VERSIONS = 500
MOST_COMPARED = 5000  # items

Number = Annotated[int, Path(ge=0, lt=2**63)]


def routes(service: Service) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["model"], route_class=Guarded)

    @router.get("/model", response_model=ModelState, responses={304: {"description": "Not modified"}, **problems(503)})
    def model(request: Request) -> Response:
        """Describe the model that is served. The ETag is its version."""
        serving = service.serving()
        number = serving.version.version
        headers = {"ETag": f'"{number}"', "Model-Version": str(number)}
        if _matches(request.headers.get("if-none-match", ""), headers["ETag"]):
            return Response(status_code=304, headers=headers)
        return Response(_state(service, serving).model_dump_json(), headers=headers, media_type=JSON)

    @router.get("/versions", response_model=VersionPage, responses=problems(422, 503))
    def versions(
        response: Response,
        limit: Annotated[int, Query(ge=1, le=MOST_VERSIONS)] = 50,
        before: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    ) -> VersionPage:
        """List versions, newest first; the next page starts before the last one's number."""
        _name_version(service, response)
        return VersionPage(versions=[VersionSummary.model_validate(row) for row in service.checkpoints.page(before, limit)])

    @router.get("/versions/{version}", response_model=VersionDetails, responses=problems(404, 422, 503))
    def version(version: Number, response: Response) -> VersionDetails:
        """Show a version with all that replay needs of it."""
        _name_version(service, response)
        return VersionDetails.model_validate(known_version(service, version))

    @router.get(
        "/versions/{before}/compare/{after}",
        response_model=Comparison,
        summary="Compare two versions",
        responses=problems(404, 410, 422, 503),
    )
    async def compare(
        before: Number, after: Number, request: Request, items: Annotated[int, Query(ge=1, le=MOST_COMPARED)] = 500
    ) -> dict[str, Any]:
        """Show what learning changed between two versions: their answers to the latest feedback, and their weights."""
        await request.body()  # there is none: the next message is the disconnect, see `answered`
        rows = await asyncio.to_thread(lambda: (_stored(service, before), _stored(service, after)))
        end = await asyncio.to_thread(service.feedback.end)
        window = Window(service.feedback, end=end, items=items, batch=service.settings.explanations.batch)
        try:
            waiting = asyncio.wrap_future(service.examiner.submit(lambda spare: comparison.compare(spare, *rows, window)))
            return await answered(request, waiting)
        except CorruptCheckpoint as exc:
            raise Problem(CHECKPOINT_GONE, "one of the checkpoints can't be read: it has just gone, or is damaged") from exc

    return router


def _state(service: Service, serving: Serving) -> ModelState:
    version, position = serving.version, Position.of(serving.version)
    log_seq = max(service.feedback.end(), position.applied_seq)
    return ModelState(
        model_version=version.version,
        labels=list(serving.labels[:MOST_LISTED]),
        log_seq=log_seq,
        applied_seq=position.applied_seq,
        lag=position.lag(log_seq),
        input=service.model.input.kind,
        task=service.model.head.task,
        device=str(service.engine.device),
        metrics=version.metrics,
        by_class=version.by_class,
        started_at=service.started_at,
    )


def known_version(service: Service, version: int) -> Version:
    """Return a version's row. Raises Problem 404."""
    row = service.checkpoints.get(version)
    if row is None:
        raise Problem(NOT_FOUND, f"there is no version {version}")
    return row


def _stored(service: Service, version: int) -> Version:
    """Return a version whose checkpoint is there. Raises Problem 404 or 410."""
    row = known_version(service, version)
    if not row.stored:
        why = "with age most lose theirs, and whichever had learned what was forgotten"
        raise Problem(CHECKPOINT_GONE, f"version {version} has no checkpoint, see its `stored`: {why}")
    return row


def _matches(if_none_match: str, etag: str) -> bool:
    """Compare weakly, as RFC 9110 asks of If-None-Match."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags


def _name_version(service: Service, response: Response) -> None:
    if service.served.now is not None:
        response.headers["Model-Version"] = str(service.served.now.version.version)
