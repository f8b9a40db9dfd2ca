"""What the OpenAPI document says beyond what FastAPI sees in a route's signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, TypeAdapter

from models.base import OnlineModel
from service.api.access import needed_by
from service.api.bodies import JSON, MULTIPART
from service.api.problems import MEDIA_TYPE, ProblemDetails
from service.api.schemas import Contract, Explanation

SCHEMAS = "#/components/schemas/{model}"
PROBLEMS = [("problem", "serialization", TypeAdapter(ProblemDetails))]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the responses of a route's errors."""
    schema = {"$ref": SCHEMAS.format(model=ProblemDetails.__name__)}
    return {status: {"description": "Problem", "content": {MEDIA_TYPE: {"schema": schema}}} for status in statuses}


def predict_body(model: OnlineModel) -> dict[str, Any]:
    """Return the request body of /predict."""
    binary = {"type": "string", "format": "binary"}
    content = {JSON: _json("PredictRequest", {"instances": [model.input.example], "top_k": 3})}
    for media_type in (*model.input.media_types, *model.input.batches):
        content[media_type] = {"schema": binary}
    if model.input.media_types:
        files = {"type": "array", "items": binary}
        content[MULTIPART] = {"schema": {"type": "object", "properties": {"files": files}}}
    return {"requestBody": {"required": True, "content": content}}


def explain_body(model: OnlineModel) -> dict[str, Any]:
    """Return the request body of /explain."""
    content = {JSON: _json("ExplainRequest", {"instance": model.input.example})}
    for media_type in model.input.media_types:
        content[media_type] = {"schema": {"type": "string", "format": "binary"}}
    label = {"name": "label", "in": "query", "required": False, "description": "For a body that is itself the instance."}
    parameters = [{**label, "schema": {"type": "string"}}] if model.input.media_types else []
    return {"requestBody": {"required": True, "content": content}, "parameters": parameters}


def explain_answer(model: OnlineModel) -> dict[str, Any]:
    """Return the answer of /explain: a picture can also be had with the attributions drawn over it."""
    drawn = {"image/png": {"schema": {"type": "string", "format": "binary"}}} if model.input.kind == "image" else {}
    return {"model": Explanation, "description": "The attributions", "content": drawn}


def feedback_body(model: OnlineModel) -> dict[str, Any]:
    """Return the request body of /feedback."""
    label = model.head.example_label
    by_id = {"prediction_id": "9f1c0de27a5b4d0c8e6f3a2b1c0d9e8f", "label": label}
    by_instance = {"instance": model.input.example, "label": label, "weight": 1.0, "key": "order-4711"}
    content = {JSON: _json("FeedbackRequest", {"feedback": [by_id, by_instance]})}
    headers = [
        _header("Idempotency-Key", "Makes a retry of the whole request harmless."),
        _header("Prefer", "`wait=S` (S <= 30) waits until the feedback is in the served model."),
    ]
    return {"requestBody": {"required": True, "content": content}, "parameters": headers}


def class_body(schema: type[BaseModel], example: Any) -> dict[str, Any]:
    """Return the request body of the routes that name and describe classes."""
    headers = [_header("Prefer", "`wait=S` (S <= 30): how long to wait for the version that knows the class; 10 by default.")]
    content = {JSON: {"schema": schema.model_json_schema(), "example": example}}
    return {"requestBody": {"required": True, "content": content}, "parameters": headers}


def act_body(schema: type[BaseModel], example: Any) -> dict[str, Any]:
    """Return the request body of an act of an admin."""
    headers = [_header("Prefer", "`wait=S` (S <= 30) waits until the act is carried out and served.")]
    content = {JSON: {"schema": schema.model_json_schema(), "example": example}}
    return {"requestBody": {"required": True, "content": content}, "parameters": headers}


def document(app: FastAPI, contract: Contract, *, body_bytes: int, secured: bool) -> Callable[[], dict[str, Any]]:
    """Return the app's `openapi`: FastAPI's, with the schemas of the bodies that the routes parse themselves.

    Where the service is `secured`, with what each route needs of a caller.
    """
    general = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            if secured:
                _secure(general())
            general()["info"]["x-max-body-bytes"] = body_bytes
            schemas = general().setdefault("components", {}).setdefault("schemas", {})
            adapters = [("request", "validation", adapter) for adapter in contract.requests]
            _, definitions = TypeAdapter.json_schemas([*adapters, *PROBLEMS], ref_template=SCHEMAS)  # type: ignore[list-item]
            schemas.update(definitions["$defs"])
        return general()

    return openapi


def _secure(document: dict[str, Any]) -> None:
    document.setdefault("components", {})["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key or a token."},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if needed := needed_by(method.upper(), path):
                operation["security"] = [{"bearer": [needed]}, {"key": [needed]}]
                operation["responses"].update({str(status): each for status, each in problems(401, 403).items()})


def _json(schema: str, example: Any) -> dict[str, Any]:
    return {"schema": {"$ref": SCHEMAS.format(model=schema)}, "example": example}


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}
