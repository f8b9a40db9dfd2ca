from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given, strategies as st
from prometheus_client import CollectorRegistry, Histogram

from service import tally
from service.tally import Tally

BUCKETS = (0.001, 0.5, 2.0)


def samples(registry: CollectorRegistry) -> dict[tuple[str, str, str], float]:
    return {
        (sample.name, sample.labels["stage"], sample.labels.get("le", "")): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(st.lists(st.tuples(st.sampled_from("ab"), st.one_of(st.sampled_from(BUCKETS), st.integers(0, 8).map(float)))))
def test_a_tally_counts_what_a_histogram_counts(observed: list[tuple[str, float]]) -> None:
    registries = CollectorRegistry(), CollectorRegistry()
    for kind, registry in zip((Histogram, Tally), registries, strict=True):
        histogram = kind("seconds", "Some.", ["stage"], buckets=BUCKETS, registry=registry)
        for stage, amount in observed:
            histogram.labels(stage).observe(amount)
    counted, plain = samples(registries[1]), samples(registries[0])
    assert counted == plain


def test_what_is_counted_once_is_not_counted_again() -> None:
    registry = CollectorRegistry()
    stage = Tally("seconds", "Some.", ["stage"], buckets=BUCKETS, registry=registry).labels("a")
    for _ in range(3):
        stage.observe(1.0)
        tally.count()
    assert samples(registry)["seconds_count", "a", ""] == 3


def test_what_is_observed_and_counted_in_many_threads_is_counted_once() -> None:
    registry = CollectorRegistry()
    stage = Tally("seconds", "Some.", ["stage"], buckets=BUCKETS, registry=registry).labels("a")
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            each = [pool.submit(lambda: [stage.observe(1.0) for _ in range(20_000)]) for _ in range(2)]
            each += [pool.submit(lambda: [tally.count() for _ in range(2_000)]) for _ in range(2)]  # type: ignore[func-returns-value]
        for done in each:
            done.result()
    finally:
        sys.setswitchinterval(before)
    assert samples(registry)["seconds_count", "a", ""] == 40_000
