"""A body in NumPy's file format is the JSON that says the same: in what it is answered, and in what is wrong with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.api.test_problems import check_problem
from tests.models.test_arrays import DTYPES, headed, header, saved
from tests.models.test_inputs import batches
from tests.running import RunningService, learn

NPY = {"Content-Type": "application/x-npy"}
JSON = {"Content-Type": "application/json"}
WIDTH, MOST = 3, 4
CONFIG = f"""
[model.input]
kind = "vector"
length = {WIDTH}
[model.encoder]
name = "tabular"
[model.head]
name = "classification"
[limits]
instances = {MOST}
body_bytes = 4000
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with RunningService(tmp_path_factory.mktemp("arrays"), CONFIG) as running:
        with running.client() as client:
            learn(client, [([number, -number, 1.0], str(number % 3)) for number in range(30)])
        yield running


@pytest.fixture(scope="module")
def client(service: RunningService) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


def sent(client: httpx.Client, array: np.ndarray, path: str = "/predict", **headers: str) -> httpx.Response:
    return client.post(path, content=saved(array), headers={**NPY, **headers})


def in_json(client: httpx.Client, instances: Any, **more: Any) -> httpx.Response:
    """Send what httpx does not: NaN and Infinity."""
    return client.post("/predict", content=json.dumps({"instances": instances, **more}), headers=JSON)


def said(answer: httpx.Response) -> bytes:
    """Return an answer's bytes without the ids, which are made up."""
    assert answer.status_code == 200, answer.text
    return re.sub(rb'"id":"[0-9a-f]{32}"', b"", answer.content)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(DTYPES).flatmap(batches), st.booleans(), st.none() | st.integers(1, 3))
def test_any_batch_is_answered_as_its_json(client: httpx.Client, array: np.ndarray, turned: bool, top_k: int | None) -> None:
    array = np.asfortranarray(array) if turned else array
    cut, query = ({}, "") if top_k is None else ({"top_k": top_k}, f"?top_k={top_k}")
    npy, listed = sent(client, array, f"/predict{query}"), in_json(client, array.tolist(), **cut)
    assert said(npy) == said(listed)
    assert npy.headers["model-version"] == listed.headers["model-version"]


def test_one_row_is_one_instance(client: httpx.Client) -> None:
    row = np.arange(WIDTH, dtype=np.float32)
    assert said(sent(client, row)) == said(sent(client, row[None])) == said(in_json(client, [row.tolist()]))


def test_the_journal_has_what_it_has_of_json(client: httpx.Client) -> None:
    array = np.array([[1, 2**53 + 1, -3]])  # which JSON has, and float64 has not
    ids = [answer.json()["predictions"][0]["id"] for answer in (sent(client, array), in_json(client, array.tolist()))]
    explained = [client.post("/explain", json={"prediction_id": id}) for id in ids]
    assert explained[0].status_code == 200
    assert explained[0].content == explained[1].content


def test_a_prediction_can_be_labelled_by_its_id_and_its_request_is_counted(client: httpx.Client) -> None:
    before = answered(client)
    answer = sent(client, np.zeros((2, WIDTH)), **{"X-Request-ID": "mine"})
    assert answer.headers["x-request-id"] == "mine"
    assert answered(client) == before + 1
    items = [{"prediction_id": each["id"], "label": "0"} for each in answer.json()["predictions"]]
    taken = client.post("/feedback", json={"feedback": items}, headers={"Prefer": "wait=30"})
    assert taken.status_code == 200
    assert len(taken.json()["accepted"]) == 2


def answered(client: httpx.Client) -> float:
    """Return how many requests to /predict were answered with 200."""
    sample = r'^everlearn_http_requests_total\{method="POST",route="/predict",status="200"\} (.*)$'
    return sum(map(float, re.findall(sample, client.get("/metrics").text, re.M)))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, WIDTH)),
        np.zeros((MOST + 1, WIDTH)),
        np.zeros((2, WIDTH + 1)),
        np.zeros((2, 0)),
        np.zeros(WIDTH - 1),
        np.zeros(()),
        np.array([[0, 1, 2], [0, np.nan, 2]]),
        np.array([np.inf, 1, 2], dtype=np.float16),
        np.array([[0, 1, 2], [0, 1, -1e39]]),
        np.zeros((1, WIDTH), dtype=bool),
        np.array([["1", "2", "3"]]),
    ],
    ids=["none", "many", "long", "empty", "short", "scalar", "nan", "inf", "beyond float32", "truths", "strings"],
)
def test_what_is_wrong_is_the_problem_that_it_is_in_json(client: httpx.Client, array: np.ndarray) -> None:
    instances = [array.tolist()] if array.ndim == 1 else array.tolist()
    npy, listed = sent(client, array), in_json(client, instances)
    check_problem(npy, listed.status_code, listed.json()["type"].rpartition(":")[2])
    blamed = npy.json()["errors"][0]["pointer"]
    if listed.status_code == 400:  # JSON ends where it is malformed, and has no place to name
        assert blamed == f"/instances/{'/'.join(map(str, np.argwhere(~np.isfinite(np.atleast_2d(array)))[0]))}"
    elif array.dtype.kind == "f":
        assert blamed == listed.json()["errors"][0]["pointer"]
    else:  # the type is the array's, and in JSON each number's own
        assert blamed == "/instances"


def test_a_body_over_the_limit_is_413(client: httpx.Client) -> None:
    check_problem(sent(client, np.zeros((200, WIDTH))), 413, "too-large")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        saved(np.zeros((1, WIDTH)))[:-1],
        saved(np.zeros((1, WIDTH))) + b"\0",
        saved(np.zeros((1, WIDTH)))[:50],
        headed(header(shape=(2**62, WIDTH)), b"\0" * 12),
        headed(header(shape=(-1, WIDTH)), b"\0" * 12),
        headed("__import__('os')._exit(1)"),
        b'{"instances": [[1, 2, 3]]}',
    ],
    ids=["nothing", "cut", "more", "head alone", "huge", "negative", "code", "json"],
)
def test_what_is_no_npy_is_400(client: httpx.Client, body: bytes) -> None:
    check_problem(client.post("/predict", content=body, headers=NPY), 400, "malformed")


@pytest.mark.parametrize("shape", [(0, 10**30), (10**30, 0), (0,), (1,) * 40, (1, 1, WIDTH)], ids=str)
def test_a_shape_that_is_none_of_a_batch_is_422(client: httpx.Client, shape: tuple[int, ...]) -> None:
    body = headed(header(shape=shape), b"\0" * 4 * int(np.prod(shape, dtype=object)))
    answer = client.post("/predict", content=body, headers=NPY)
    check_problem(answer, 422, "invalid")
    assert answer.json()["errors"][0]["pointer"].startswith("/instances")


def test_objects_are_422_and_never_unpickled(client: httpx.Client) -> None:
    answer = sent(client, np.array([[{}, None, print]], dtype=object))
    check_problem(answer, 422, "invalid")
    assert "nothing is unpickled" in answer.json()["detail"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200).map(lambda garbage: saved(np.zeros(WIDTH))[:8] + garbage)
    | st.binary(max_size=120).map(headed)
    | st.tuples(st.integers(0, 140), st.integers(1, 255)).map(lambda flip: flipped(saved(np.ones(WIDTH)), *flip))
)
def test_garbage_is_never_a_5xx(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/predict", content=body, headers=NPY)
    assert answer.status_code in {200, 400, 422}, answer.text
    if answer.status_code != 200:
        check_problem(answer, answer.status_code, "")


def flipped(body: bytes, place: int, bits: int) -> bytes:
    """Return a body with some bits of one byte turned."""
    return body[:place] + bytes([body[place] ^ bits]) + body[place + 1 :]


@pytest.mark.parametrize("path", ["/feedback", "/explain"])
def test_other_routes_do_not_take_it(client: httpx.Client, path: str) -> None:
    check_problem(sent(client, np.zeros(WIDTH), path), 415, "unsupported-media-type")


def test_the_document_says_that_it_is_taken(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    content = paths["/predict"]["post"]["requestBody"]["content"]
    assert content[NPY["Content-Type"]] == {"schema": {"type": "string", "format": "binary"}}
    refused = client.post("/predict", content=b"1,2,3", headers={"Content-Type": "text/csv"})
    check_problem(refused, 415, "unsupported-media-type")
    assert NPY["Content-Type"] in refused.json()["detail"]
