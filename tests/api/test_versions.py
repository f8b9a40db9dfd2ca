from __future__ import annotations

import httpx

from tests.running import learn

Digits = list[tuple[list[float], str]]


def test_the_model_says_what_it_is_and_how_far_it_has_learned(client: httpx.Client, digits: Digits) -> None:
    learned = learn(client, digits[:20])
    answer = client.get("/model")
    body = answer.json()
    assert answer.headers["etag"] == f'"{body["model_version"]}"'
    assert body["model_version"] == learned["model_version"]
    assert body["applied_seq"] == body["log_seq"] == learned["log_seq"]
    assert body["lag"] == 0
    assert (body["input"], body["task"], body["device"]) == ("vector", "classification", "cpu")
    assert body["metrics"]["items"] == learned["log_seq"]
    assert sum(of["items"] for of in body["by_class"].values()) == learned["log_seq"]


def test_a_model_that_is_known_already_is_304(client: httpx.Client) -> None:
    etag = client.get("/model").headers["etag"]
    for sent in (etag, f"W/{etag}", f'"zzz", {etag}', "*"):
        answer = client.get("/model", headers={"If-None-Match": sent})
        assert (answer.status_code, answer.content) == (304, b"")
    assert client.get("/model", headers={"If-None-Match": '"zzz"'}).status_code == 200


def test_versions_are_listed_newest_first_in_pages(client: httpx.Client, digits: Digits) -> None:
    for item in digits[:3]:
        learn(client, [item])
    first = client.get("/versions", params={"limit": 2}).json()["versions"]
    rest = client.get("/versions", params={"before": first[-1]["version"], "limit": 500}).json()["versions"]
    numbers = [row["version"] for row in first + rest]
    assert numbers == list(range(numbers[0], -1, -1))
    assert client.get("/versions", params={"before": 0}).json() == {"versions": []}


def test_a_version_shows_what_it_took_and_where_it_came_from(client: httpx.Client, digits: Digits) -> None:
    number = learn(client, digits[:2])["model_version"]
    row = client.get(f"/versions/{number}").json()
    assert row["parent"] == number - 1
    assert [seq for new, _ in row["steps"] for seq in new] == list(range(row["first_seq"], row["last_seq"] + 1))
    assert row["stored"] is True
    assert len(row["sha256"]) == 64
    assert row["environment"]["device"] == "cpu"


def test_a_version_that_is_not_there_is_404_and_nonsense_is_422(client: httpx.Client) -> None:
    assert client.get("/versions/99999").status_code == 404
    assert client.get("/versions/last").status_code == 422
    assert client.get("/versions", params={"limit": 0}).status_code == 422


def test_a_parameter_that_is_given_twice_is_refused(client: httpx.Client) -> None:
    for path in ("/versions?limit=1&limit=2", "/classes?offset=true&offset=0", "/versions?before=1&limit=2&before=1"):
        answer = client.get(path)
        assert answer.status_code == 422, path
        assert "is given 2 times in the query" in answer.json()["detail"]
    assert client.get("/versions?limit=1&other=1&other=2").status_code == 200
