"""The Python client against a real service, with a bad gateway between where that is the point."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.access import Scope
from service.client import (
    AsyncClient,
    Client,
    ClientError,
    Feedback,
    Forbidden,
    Invalid,
    KeyReused,
    Limits,
    NoClasses,
    NotFound,
    NotInTime,
    ProblemError,
    TooLarge,
    Unauthenticated,
    UnknownPrediction,
    Unreachable,
)
from service.client.batches import cut
from service.client.errors import retry_after_of
from tests.api.test_access import Keyed
from tests.clients.gateway import BadGateway, Refusal
from tests.running import DIGITS, ROOT, RunningService

SMALL = DIGITS + "[limits]\ninstances = 3\nfeedback = 4\nbody_bytes = 4096\n"
BUSY = Refusal(503, {"Retry-After": "0"})
ONES = [1.0] * 64


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Run a service that takes little at once, and knows a class."""
    with RunningService(tmp_path_factory.mktemp("service"), SMALL) as running:
        with Client(running.url) as client:
            with pytest.raises(NoClasses) as caught:
                client.predict([ONES])
            assert (caught.value.status, caught.value.kind) == (409, "no-classes")
            client.feedback([item("a")], wait=30)
        yield running


@pytest.fixture
def client(service: RunningService) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


def item(label: str = "a", number: float = 1.0) -> Feedback:
    return Feedback(label=label, instance=[number] * 64)


def test_what_is_taught_is_waited_for_and_predicted(client: Client) -> None:
    taken = client.feedback([item("ab"[number % 2], 9.0 * (number % 2)) for number in range(20)], wait=30)
    assert taken.seqs == list(range(taken.seqs[0], taken.seqs[0] + 20))
    assert taken.model_version is not None
    (prediction,) = client.predict([[9.0] * 64], top_k=1)
    assert prediction.answer["label"] == "b"
    assert prediction.model_version >= taken.model_version
    corrected = client.feedback([Feedback(label="a", prediction_id=prediction.id)])
    assert client.wait_for(seq=corrected.seqs[0]) > taken.model_version
    assert client.status(corrected.seqs[0]).status in {"applied", "holdout"}
    model = client.model()
    assert (model.task, model.labels, model.lag) == ("classification", ["a", "b"], 0)
    assert client.wait_for(version=model.model_version) == model.model_version


def test_what_does_not_come_is_not_waited_for_for_ever(client: Client) -> None:
    with pytest.raises(NotInTime):
        client.wait_for(version=10**6, seconds=0.05)
    with pytest.raises(ValueError, match="either"):
        client.wait_for()


def test_many_items_go_in_requests_that_the_service_takes(service: RunningService) -> None:
    with BadGateway(service.url) as gateway, Client(gateway.url) as client:
        assert client.limits() == Limits(instances=3, feedback=4, body_bytes=4096)
        assert len(client.predict([float(number)] * 64 for number in range(8))) == 8
        assert len(client.feedback(item() for _ in range(9)).seqs) == 9
        assert gateway.paths == ["GET /openapi.json", *["POST /predict"] * 3, *["POST /feedback"] * 3]
        long = [[1.2345678901234567] * 64] * 3  # three of them are more than the body may have
        assert len(client.predict(long)) == 3
        assert [len(body) for _, _, body in gateway.seen if len(body) > 4096] == []
        assert client.predict([]) == []
        assert client.feedback([]).seqs == []
        with pytest.raises(TypeError, match=r"feedback takes Feedback\(instance=..., label=...\), not dict"):
            client.feedback([{"instance": [1.0, 2.0], "label": "a"}])  # type: ignore[list-item]


def test_one_item_needs_no_look_at_the_limits(service: RunningService) -> None:
    with BadGateway(service.url) as gateway, Client(gateway.url) as client:
        client.predict([ONES])
        client.feedback([item()])
        assert gateway.paths == ["POST /predict", "POST /feedback"]


def test_batches_hold_all_items_in_order_and_say_which_is_the_last() -> None:
    items = [b"x" * size for size in (1, 2, 3, 900, 1, 1)]
    batches = list(cut(iter(items), 3, 1000))
    assert [len(batch.items) for batch in batches] == [3, 1, 2]
    assert [each for batch in batches for each in batch.items] == items
    assert [batch.start for batch in batches] == [0, 3, 4]
    assert [batch.last for batch in batches] == [False, False, True]
    assert json.loads(batches[2].body("feedback", b',"a":1').replace(b"x", b"0")) == {"feedback": [0, 0], "a": 1}


def test_arrays_are_lists_and_bytes_are_pictures() -> None:
    taught = json.loads(Feedback(label=np.int64(3), instance=np.zeros(2, dtype=np.float32), key="k").as_json())
    assert taught == {"instance": [0.0, 0.0], "label": 3, "key": "k"}
    assert json.loads(Feedback(label="cat", instance=b"\x00", key="k").as_json())["instance"] == {"b64": "AA=="}
    with pytest.raises(ValueError, match="JSON"):
        Feedback(label="cat", instance=[float("nan")]).as_json()
    with pytest.raises(TypeError, match="longdouble"):
        Feedback(label=np.longdouble(1), instance=[0.0]).as_json()
    with pytest.raises(TypeError, match="object"):
        Feedback(label="cat", instance=object()).as_json()


ROWS = np.linspace(-1, 9, 7 * 64).reshape(7, 64)


@pytest.mark.parametrize(
    "array",
    [ROWS, ROWS.astype("<f4"), ROWS.astype(">f2"), ROWS.astype("i1"), ROWS.astype(">u8"), np.asfortranarray(ROWS), ROWS[::-2]],
    ids=["f8", "f4", ">f2", "i1", ">u8", "Fortran", "strides"],
)
def test_an_array_of_numpy_goes_as_it_is_and_is_answered_as_its_lists(service: RunningService, array: np.ndarray) -> None:
    with BadGateway(service.url) as gateway, Client(gateway.url) as client:
        answers = [each.answer for each in client.predict(array, top_k=1)]
        sent = [
            (headers["content-type"], np.load(io.BytesIO(body))) for path, headers, body in gateway.seen if "predict" in path
        ]
        assert {media_type for media_type, _ in sent} == {"application/x-npy"}
        assert [len(rows) for _, rows in sent[:-1]] == [3] * (len(sent) - 1)  # the limit of this service
        assert {rows.dtype for _, rows in sent} == {array.dtype}
        np.testing.assert_array_equal(np.concatenate([rows for _, rows in sent]), array)
        assert answers == [each.answer for each in client.predict(array.tolist(), top_k=1)]


@pytest.mark.parametrize(
    "array",
    [np.ma.masked_array(ROWS, np.zeros_like(ROWS, dtype=bool)), ROWS.astype(object), list(ROWS)],
    ids=["masked", "objects", "list"],
)
def test_what_npy_would_not_say_goes_as_json(service: RunningService, array: Any) -> None:
    with BadGateway(service.url) as gateway, Client(gateway.url) as client:
        assert len(client.predict(array)) == 7
        assert {headers.get("content-type") for path, headers, _ in gateway.seen if "predict" in path} == {"application/json"}


def test_a_service_that_does_not_take_arrays_is_sent_lists(service: RunningService) -> None:
    with BadGateway(service.url, Refusal(415)) as gateway, Client(gateway.url) as client:
        assert len(client.predict(ROWS[:1])) == 1
        assert [headers["content-type"] for _, headers, _ in gateway.seen] == ["application/x-npy", "application/json"]


@pytest.mark.parametrize(("number", "status"), [(np.nan, 400), (1e39, 422)])
def test_a_number_of_an_array_is_blamed_by_its_place_among_all(client: Client, number: float, status: int) -> None:
    rows = ROWS.copy()
    rows[5, 7] = number
    with pytest.raises(ProblemError) as caught:
        client.predict(rows)
    assert caught.value.status == status
    assert caught.value.detail.startswith("/instances/5/7: ")
    assert [fault.pointer for fault in caught.value.faults] == ["/instances/5/7"]


def test_feedback_whose_answer_is_lost_is_sent_again_and_taken_once(service: RunningService) -> None:
    with BadGateway(service.url, "lose", BUSY, "lose") as gateway, Client(gateway.url) as client:
        before = client_end(service)
        (seq,) = client.feedback([item("b")], wait=30).seqs
        assert gateway.paths == ["POST /feedback"] * 4
        assert len({body for _, _, body in gateway.seen}) == 1
        assert seq == before + 1 == client_end(service)


def test_a_call_that_failed_can_be_made_again_with_the_same_items(service: RunningService) -> None:
    items = [item("a", number) for number in range(10)]
    with BadGateway(service.url, "pass", "pass", Refusal(500)) as gateway, Client(gateway.url) as client:
        before = client_end(service)
        with pytest.raises(ProblemError) as caught:
            client.feedback(items)
        assert (caught.value.status, caught.value.kind, client_end(service)) == (500, "", before + 4)
        assert client.feedback(items).seqs == list(range(before + 1, before + 11))


def test_a_class_is_not_added_again_where_it_may_have_arrived(service: RunningService) -> None:
    with BadGateway(service.url, "lose", BUSY, Refusal(429, {"Retry-After": "0"})) as gateway, Client(gateway.url) as client:
        with pytest.raises(Unreachable):
            client.describe("c")
        with pytest.raises(ProblemError, match="503"):
            client.describe("d")
        added = client.describe("d")  # for 429 says that nothing was done
        assert (added.name, added.descriptions) == ("d", [])
        assert gateway.paths == ["POST /classes"] * 4


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_a_gateway_in_trouble_is_asked_again(service: RunningService, status: int) -> None:
    with BadGateway(service.url, Refusal(status), Refusal(status)) as gateway, Client(gateway.url) as client:
        assert len(client.predict([ONES])) == 1
        assert len(gateway.seen) == 3


@pytest.mark.parametrize("status", [400, 404, 413, 500, 501])
def test_what_would_fail_again_is_not_asked_again(service: RunningService, status: int) -> None:
    with BadGateway(service.url, Refusal(status)) as gateway, Client(gateway.url) as client:
        with pytest.raises(ProblemError) as caught:
            client.predict([ONES])
        assert (caught.value.status, caught.value.kind, len(gateway.seen)) == (status, "", 1)


def test_retry_after_is_waited_for_and_not_begun_where_patience_is_shorter(service: RunningService) -> None:
    with BadGateway(service.url, Refusal(503, {"Retry-After": "1"})) as gateway, Client(gateway.url) as client:
        began = time.monotonic()
        client.predict([ONES])
        assert time.monotonic() - began >= 1
    with BadGateway(service.url, Refusal(503, {"Retry-After": "3600"})) as gateway, Client(gateway.url) as client:
        with pytest.raises(ProblemError) as caught:
            client.predict([ONES])
        assert (caught.value.retry_after, len(gateway.seen)) == (3600, 1)


def test_retry_after_may_be_a_date() -> None:
    def seconds(value: str) -> float | None:
        return retry_after_of(httpx.Response(503, headers={"Retry-After": value}))

    assert seconds("7") == 7
    assert seconds("Thu, 01 Jan 1970 00:00:00 GMT") == 0
    assert (seconds("Fri, 31 Dec 2100 23:59:59 GMT") or 0) > 10**9
    assert seconds("soon") is seconds("") is seconds("-1") is None


def test_an_answer_that_can_not_be_read_is_an_error_of_the_client(service: RunningService) -> None:
    garbled = Refusal(200, {"Content-Encoding": "gzip"}, b"no gzip")
    with BadGateway(service.url, *[garbled] * 50) as gateway:
        client = Client(gateway.url, patience=0.3)
        with client, pytest.raises(Unreachable):
            client.feedback([item("a")])


def test_nobody_at_home_is_asked_until_patience_ends_and_then_named() -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        with Client(f"http://127.0.0.1:{taken.getsockname()[1]}", patience=0.3) as client:
            with pytest.raises(Unreachable, match=r"POST /predict: .*refused"):
                client.predict([ONES])
            with pytest.raises(Unreachable, match="POST /classes"):
                client.describe("c")
    with Client("nonsense://somewhere") as client, pytest.raises(Unreachable, match="nonsense"):
        client.model()


def test_something_else_at_the_url_is_said_to_be_that(service: RunningService) -> None:
    with BadGateway(service.url, Refusal(200)) as gateway, Client(gateway.url) as client:
        with pytest.raises(ClientError, match="is there an everlearn") as caught:
            client.model()
        assert not isinstance(caught.value, ProblemError)


@pytest.mark.parametrize("body", [b"[1]", b'{"predictions": [[0.5]]}', b"null"])
def test_other_json_is_said_to_be_something_else_s(service: RunningService, body: bytes) -> None:
    with BadGateway(service.url, *[Refusal(200, body=body)] * 4) as gateway, Client(gateway.url) as client:
        for ask in (
            client.model,
            partial(client.status, 1),
            partial(client.predict, [ONES]),
            partial(client.feedback, [item("a")]),
        ):
            with pytest.raises(ClientError, match=r"does not say .*is there an everlearn"):
                ask()


def test_refusals_are_told_apart_and_blame_the_item_among_all_that_were_given(client: Client) -> None:
    with pytest.raises(Invalid) as caught:
        client.predict([*[ONES] * 7, [1.0]])
    assert [fault.pointer for fault in caught.value.faults] == ["/instances/7"]
    assert caught.value.detail.startswith("/instances/7: ")
    assert caught.value.request_id
    with pytest.raises(Invalid, match="either prediction_id or instance"):
        client.feedback([Feedback(label="a", instance=ONES, prediction_id="1")])
    with pytest.raises(UnknownPrediction) as unknown:
        client.feedback([*(item() for _ in range(5)), Feedback(label="a", prediction_id="nobody-knows")])
    assert unknown.value.faults[0].pointer == "/feedback/5"
    first = item("a", 5)
    client.feedback([first])
    with pytest.raises(KeyReused):
        client.feedback([Feedback(label="b", instance=ONES, key=first.key)])
    with pytest.raises(NotFound):
        client.status(10**9)
    with pytest.raises(TooLarge):
        client.predict([[0.12345678901234567] * 1000])


def test_keys_and_tokens_open_what_they_may(tmp_path: Path) -> None:
    holders: dict[str, list[Scope]] = {"reader": ["predict"], "teacher": ["feedback"]}
    with Keyed(tmp_path, **holders) as service:
        with Client(service.url) as nobody, pytest.raises(Unauthenticated):
            nobody.model()
        with Client(service.url, key=service.keys["reader"]) as reader:
            assert reader.model().model_version == 0
            with pytest.raises(Forbidden):
                reader.feedback([item()])
        tokens = iter([service.keys["teacher"], "expired"])
        with Client(service.url, token=lambda: next(tokens)) as teacher:
            assert teacher.feedback([item()]).seqs == [1]
            with pytest.raises(Unauthenticated):
                teacher.feedback([item()])
    with pytest.raises(ValueError, match="not both"):
        Client("http://127.0.0.1", key="a", token="b")


def test_the_asynchronous_client_does_the_same(service: RunningService) -> None:
    async def course() -> None:
        with BadGateway(service.url, "lose", BUSY) as gateway:
            async with AsyncClient(gateway.url) as client:
                before = client_end(service)
                taken = await client.feedback([item("a")], wait=30)
                assert taken.seqs == [before + 1]
                answers = await asyncio.gather(*(client.predict([ONES]) for _ in range(5)))
                assert len({each.id for (each,) in answers}) == 5
                assert await client.wait_for(seq=taken.seqs[0]) >= (taken.model_version or 0)
                assert (await client.status(taken.seqs[0])).seq == taken.seqs[0]
                assert (await client.model()).task == "classification"
                assert (await client.describe("async")).name == "async"
                assert (await client.limits()).instances == 3
                with pytest.raises(Invalid):
                    await client.predict([[1.0]])
        async with AsyncClient(gateway.url, patience=0.2) as nobody:
            with pytest.raises(Unreachable):
                await nobody.model()

    asyncio.run(course())


def test_both_clients_have_the_same_methods() -> None:
    def public(of: type) -> set[str]:
        return {name for name in vars(of) if not name.startswith("_")}

    assert public(Client) == public(AsyncClient)


def test_the_client_needs_nothing_of_what_the_service_needs() -> None:
    code = "import sys, service.client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "numpy", "pydantic", "fastapi", "PIL"}


def client_end(service: RunningService) -> int:
    """Return the end of the log."""
    model: dict[str, Any] = httpx.get(f"{service.url}/model").json()
    return int(model["log_seq"])


@pytest.mark.parametrize(
    "details",
    [
        {"errors": None, "reasons": None},
        {"errors": [{"message": "no"}]},
        {"errors": {"name": ["no"]}},
        {"errors": ["no"], "type": None},
        {"errors": 1, "reasons": 1},
    ],
)
def test_problem_details_of_somebody_else_are_a_problem_too(service: RunningService, details: dict[str, Any]) -> None:
    refusal = Refusal(400, {"Content-Type": "application/problem+json"}, json.dumps({"detail": "no", **details}).encode())
    with BadGateway(service.url, refusal) as gateway, Client(gateway.url) as client, pytest.raises(ProblemError) as caught:
        client.model()
    assert (caught.value.status, caught.value.detail, caught.value.faults) == (400, "no", [])


def test_a_key_that_can_not_be_sent_is_not_tried_again(service: RunningService) -> None:
    with Client(service.url, token="a key from a file\n", patience=60) as client:
        began = time.monotonic()
        with pytest.raises(Unreachable, match="Illegal header value"):
            client.model()
        assert time.monotonic() - began < 30
