from __future__ import annotations

from typing import Any

import httpx

from tests.running import RunningService, learn

PATHS = {
    "/predict": "post",
    "/explain": "post",
    "/feedback": "post",
    "/feedback/{seq}": "get",
    "/classes": "post",
    "/classes/{name}": "patch",
    "/acts/{seq}": "get",
    "/rollback": "post",
    "/release": "post",
    "/forget": "post",
    "/model": "get",
    "/versions": "get",
    "/versions/{version}": "get",
    "/versions/{before}/compare/{after}": "get",
    "/livez": "get",
    "/readyz": "get",
    "/metrics": "get",
}


def references(value: Any) -> set[str]:
    """Return every $ref in a document."""
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_every_route_is_documented_with_its_answers(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for path, method in PATHS.items():
        operation = document["paths"][path][method]
        assert operation["summary"], path
        assert operation["responses"], path
    assert document["paths"].keys() == PATHS.keys()


def test_every_reference_of_the_document_leads_somewhere(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    found = references(document)
    assert found
    for reference in found:
        place = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_the_bodies_are_those_of_the_running_model(client: httpx.Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    instances = schemas["PredictRequest"]["properties"]["instances"]
    assert instances["items"]["minItems"] == instances["items"]["maxItems"] == 64


def test_the_examples_work_as_they_stand(service: RunningService, client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    learn(client, [([0.0] * 64, "cat")])
    predict = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    answer = client.post("/predict", json=predict)
    assert answer.status_code == 200
    feedback = document["paths"]["/feedback"]["post"]["requestBody"]["content"]["application/json"]["example"]
    feedback["feedback"][0]["prediction_id"] = answer.json()["predictions"][0]["id"]
    assert client.post("/feedback", json=feedback).status_code == 202
