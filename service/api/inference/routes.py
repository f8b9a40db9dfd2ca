"""The routes below /v2. Their errors have the protocol's own shape, see `problems`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from models.base import Answer
from service.api.bodies import JSON, media_type_of, parse_json, read, unsupported
from service.api.inference.answers import Output, outputs_of
from service.api.inference.instances import inputs_of
from service.api.inference.tensors import InferenceRequest, Written, arrays_of, refused
from service.api.predict import Asked, answer, asked_in
from service.api.problems import INVALID, NOT_FOUND, UNSUPPORTED, Problem, invalid
from service.api.readiness import Readiness
from service.api.routing import Guarded
from service.api.schemas import Contract
from service.api.service import Service

BINARY = "application/octet-stream"
HEADER_LENGTH = "Inference-Header-Content-Length"
MODEL = "/v2/models/{model}"
VERSION = MODEL + "/versions/{version}"

REQUEST = TypeAdapter(InferenceRequest)


def routes(service: Service, contract: Contract) -> APIRouter:
    """Return the routes. They are not in the OpenAPI document: the protocol has one of its own."""
    router = APIRouter(route_class=Guarded, include_in_schema=False)
    limits, name = service.settings.limits, service.settings.serving.name
    readiness = Readiness(service)
    inputs, outputs = inputs_of(service.model.input), outputs_of(service.model.head.answer_type)

    def known(request: Request) -> int:
        """Return the version that is served. Raises Problem 404 where another model or version is asked for."""
        served = service.serving().version.version
        given = request.path_params
        if given["model"] != name:
            raise Problem(NOT_FOUND, f"there is no model {given['model']!r}; there is {name!r}")
        if given.get("version", str(served)) != str(served):
            raise not_served(given["version"], served)
        return served

    @router.get("/v2")
    async def server() -> dict[str, Any]:
        """Describe the server."""
        return {"name": "everlearn", "version": version("everlearn"), "extensions": ["binary_tensor_data"]}

    @router.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        """Say that the process answers."""
        return {"live": True}

    @router.get("/v2/health/ready")
    def ready() -> dict[str, bool]:
        """Say that it can do its work."""
        readiness.check()
        return {"ready": True}

    @router.get(MODEL)
    @router.get(VERSION)
    async def model(request: Request) -> dict[str, Any]:
        """Describe the tensors that the model takes and gives."""
        return {
            "name": name,
            "versions": [str(known(request))],
            "platform": "everlearn_pytorch",
            "inputs": [each.as_json() for each in inputs.described],
            "outputs": [each.described.as_json() for each in outputs.values()],
        }

    @router.get(f"{MODEL}/ready")
    @router.get(f"{VERSION}/ready")
    def model_ready(request: Request) -> dict[str, Any]:
        """Say that the model can be asked."""
        readiness.check()
        known(request)
        return {"name": name, "ready": True}

    @router.post(f"{MODEL}/infer")
    @router.post(f"{VERSION}/infer")
    async def infer(request: Request) -> Response:
        """Answer every instance by one version of the model: the same as /predict does."""
        known(request)
        sent, binary = await _parsed(request, limits.body_bytes)
        inputs.check(sent.inputs, limits.instances)
        wanted = _wanted(sent, outputs)

        async def ask(_: Request) -> Asked:
            body = {"instances": inputs.instances(arrays_of(sent.inputs, binary)), "top_k": sent.parameters.top_k}
            try:
                return asked_in(service, contract.predict.validate_python(body))
            except ValidationError as exc:
                raise invalid(exc, lambda: body) from exc

        def write(answered_by: int, predictions: list[Answer]) -> Response:
            if request.path_params.get("version", str(answered_by)) != str(answered_by):  # it was, when the request came
                raise not_served(request.path_params["version"], answered_by)
            named = {} if sent.id is None else {"id": sent.id}
            tensors = [output.written(predictions, binary=in_binary) for output, in_binary in wanted]
            return _inferred({"model_name": name, "model_version": str(answered_by), **named}, tensors)

        return await answer(service, request, ask, write)

    return router


def not_served(asked: str, served: int) -> Problem:
    """Return the problem of a version that is not the one that is served: there is but one at a time."""
    return Problem(NOT_FOUND, f"version {asked} is not served; version {served} is")


async def _parsed(request: Request, limit: int) -> tuple[InferenceRequest, bytes]:
    """Return the request and the bytes behind its JSON. Raises Problem."""
    if (media_type := media_type_of(request)) not in {JSON, BINARY}:
        raise unsupported(media_type, [JSON, BINARY])
    if encoding := request.headers.get("content-encoding"):
        raise Problem(UNSUPPORTED, f"bodies come as they are, not in {encoding!r}")
    body = await read(request, limit)
    length = request.headers.get(HEADER_LENGTH, str(len(body)))
    if not re.fullmatch(r"[0-9]{1,18}", length) or int(length) > len(body):
        raise Problem(INVALID, f"{HEADER_LENGTH} is {length}, and the body has {len(body)} bytes")
    return parse_json(REQUEST, body[: int(length)]), body[int(length) :]


def _wanted(sent: InferenceRequest, outputs: Mapping[str, Output]) -> list[tuple[Output, bool]]:
    """Return the outputs that are asked for, all where none is named, and whether each goes in binary. Raises Problem 422."""
    in_binary = sent.parameters.binary_data_output
    if not sent.outputs:
        return [(output, in_binary) for output in outputs.values()]
    asked = Counter(each.name for each in sent.outputs)
    for name, times in asked.items():
        if name not in outputs:
            raise refused(name, f"there is no such output; there are {', '.join(outputs)}")
        if times > 1:  # an answer of any size could be asked for
            raise refused(name, "it is asked for twice")
    told = [(each.name, each.parameters.binary_data) for each in sent.outputs]
    return [(outputs[name], in_binary if binary is None else binary) for name, binary in told]


def _inferred(head: dict[str, Any], tensors: list[Written]) -> Response:
    """Return an answer: JSON, and behind it what tensors have in binary."""
    body = to_json({**head, "outputs": [tensor.entry for tensor in tensors]})
    if all(tensor.binary is None for tensor in tensors):
        return Response(body, media_type=JSON)
    behind = b"".join(tensor.binary or b"" for tensor in tensors)
    return Response(body + behind, headers={HEADER_LENGTH: str(len(body))}, media_type=BINARY)
