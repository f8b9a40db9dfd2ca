from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from service.api.newcomers import Newcomers
from service.api.problems import Problem
from service.serving.served import Serving
from service.store import Version
from tests.api.test_problems import check_problem
from tests.running import DIGITS, RunningService, learn, wait_for

INSTANCE = [0.0] * 64


def serving(last_seq: int, *labels: str) -> Serving:
    version = Version(
        version=last_seq,
        parent=None,
        updates=0,
        created_at=0.0,
        first_seq=0,
        last_seq=last_seq,
        applied_seq=last_seq,
        steps=[],
        metrics={},
        by_class=None,
        environment={},
        reason="",
        parts={},
        sha256="",
    )
    return Serving(version, labels, {})


def test_places_are_held_until_a_version_has_taken_what_they_are_for() -> None:
    newcomers = Newcomers(3)
    with newcomers.reserved(serving(0, "a"), [["a"], ["b"], ["c"], ["b"]]) as reserved:
        reserved.until(4)
    for behind in (0, 3):
        with pytest.raises(Problem), newcomers.reserved(serving(behind, "a"), [["d"]]):
            pass
    with newcomers.reserved(serving(3, "a"), [["c"], ["a"]]):  # they are on their way, and no newer than before
        pass
    with newcomers.reserved(serving(4, "a", "b"), [["d"]]) as reserved:  # c was quarantined
        reserved.until(5)


def test_places_are_free_again_where_the_append_failed() -> None:
    newcomers = Newcomers(2)
    with pytest.raises(OSError, match="full"), newcomers.reserved(serving(0), [["a"], ["b"]]):
        raise OSError("full")
    with newcomers.reserved(serving(0), [["c"], ["d"]]):
        with pytest.raises(Problem) as raised, newcomers.reserved(serving(0), [["c"], ["e"], ["f"]]):
            pass
        assert raised.value.faults[0].pointer == "/feedback/1/label"


def test_a_task_without_classes_counts_nothing() -> None:
    with Newcomers(None).reserved(None, [[]] * 1000) as reserved:
        reserved.until(1)


def test_a_flood_of_ten_thousand_labels_ends_at_the_door(tmp_path: Path) -> None:
    limited = DIGITS + "max_classes = 20\n"
    with RunningService(tmp_path, limited) as service, service.client() as client:
        learn(client, [(INSTANCE, "known")])

        async def flood() -> list[httpx.Response]:
            async with httpx.AsyncClient(base_url=service.url, timeout=None) as sender:
                bodies = [
                    {"feedback": [{"instance": INSTANCE, "label": f"l{100 * number + item}"} for item in range(100)]}
                    for number in range(95)
                ]
                bodies += [{"feedback": [{"instance": INSTANCE, "label": f"m{number}"}]} for number in range(500)]
                return await asyncio.gather(*(sender.post("/feedback", json=body) for body in bodies))

        answers = asyncio.run(flood())
        taken = [answer for answer in answers if answer.status_code == 202]
        assert len(taken) == 19
        for answer in answers:
            if answer.status_code != 202:
                check_problem(answer, 422, "too-many-classes")
        check_problem(client.post("/classes", json={"name": "one more"}), 422, "invalid")
        wait_for(lambda: client.get("/model").json()["lag"] == 0, "the flood to be learned")
        assert client.get("/classes").json()["count"] == 20
        assert all(not row["quarantined"] for row in details(client))
        learn(client, [(INSTANCE, "known")])
        assert client.post("/predict", json={"instances": [INSTANCE]}).status_code == 200


def details(client: httpx.Client) -> list[dict[str, object]]:
    listed = client.get("/versions", params={"limit": 500}).json()["versions"]
    return [client.get(f"/versions/{row['version']}").json() for row in listed]
