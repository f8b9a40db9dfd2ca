from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.running import learn

Digits = list[tuple[list[float], str]]


def sampled(client: httpx.Client) -> dict[str, float]:
    """Return every sample without labels, and those with labels summed up."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def test_the_process_is_alive_and_ready(client: httpx.Client) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_metrics_count_what_happened_in_every_process(client: httpx.Client, digits: Digits) -> None:
    learn(client, digits[:10])
    before = sampled(client)
    learned = learn(client, digits[:10])
    client.post("/predict", json={"instances": [digits[0][0]]})
    after = sampled(client)
    assert after["everlearn_update_items_total"] - before["everlearn_update_items_total"] == 10
    assert after["everlearn_batch_instances_sum"] - before["everlearn_batch_instances_sum"] == 1
    assert after["everlearn_model_version"] == learned["model_version"]
    assert after["everlearn_lag"] == 0
    assert after["everlearn_drifts_total"] == 0
    weights = client.get("/model").json()["metrics"]["experts"]
    assert after["everlearn_expert_weight"] == pytest.approx(sum(weights.values()))
    assert after["everlearn_http_requests_total"] > before["everlearn_http_requests_total"]


def test_a_client_can_not_make_new_time_series(client: httpx.Client) -> None:
    for path in ("/a", "/b", "/versions/1", "/versions/2"):
        client.get(path)
    text = client.get("/metrics").text
    assert 'route="/a"' not in text
    assert 'route="/versions/{version}"' in text


def test_a_sane_request_id_comes_back_and_another_is_replaced(client: httpx.Client) -> None:
    assert client.get("/livez", headers={"X-Request-ID": "order-4711"}).headers["x-request-id"] == "order-4711"
    made = client.get("/livez", headers={"X-Request-ID": "a b\tc" * 100}).headers["x-request-id"]
    assert len(made) == 32


def test_the_root_leads_to_the_documentation(client: httpx.Client) -> None:
    answer = client.get("/", follow_redirects=True)
    assert answer.status_code == 200
    assert "swagger" in answer.text.lower()
