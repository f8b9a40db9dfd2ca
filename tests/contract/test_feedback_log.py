from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from service.store import FeedbackLog, KeyReused, MissingInstance, NewEntry, StoreUnavailable
from service.store.embedded import DataDirectory, EmbeddedFeedbackLog

Opener = Callable[[], FeedbackLog]


def entry(instance: bytes | None = b"x", label: str = '"a"', key: str | None = None, digest: bytes = b"d") -> NewEntry:
    return NewEntry(instance=instance, label=label, digest=digest, key=key)


def append(log: FeedbackLog, *entries: NewEntry) -> list[int]:
    return log.append(entries).result(10)


def test_what_is_appended_is_read_back_as_it_was(log: FeedbackLog) -> None:
    join: dict[str, Any] = {"prediction_id": "p", "predicted_by": 7, "answer": '{"value": 1}'}
    new = NewEntry(instance=b"\x00\xff", label='"ä"', digest=b"d", weight=0.5, key="k", **join)
    (seq,) = append(log, new)
    (found,) = log.read(0, 10)
    assert (found.seq, found.instance, found.label, found.weight) == (seq, b"\x00\xff", '"ä"', 0.5)
    assert (found.key, {name: getattr(found, name) for name in join}) == ("k", join)
    assert abs(found.received_at - time.time()) < 60
    assert log.fetch([seq, seq + 1]) == {seq: found}


def test_a_later_label_of_a_prediction_replaces_the_one_before(log: FeedbackLog) -> None:
    first, other, second, third = append(log, *(entry()._replace(prediction_id=id) for id in ("p", "q", "p", "p")))
    (plain,) = append(log, entry())
    found = log.fetch([first, other, second, third, plain])
    assert {seq: each.replaces for seq, each in found.items()} == {
        first: None, other: None, second: first, third: second, plain: None
    }  # fmt: skip


def test_an_entry_that_wants_to_be_the_first_label_gives_way_to_the_one_that_is_there(log: FeedbackLog) -> None:
    timeout = entry(label="false")._replace(prediction_id="p", only_first=True)
    (clicked,) = append(log, entry(label="true")._replace(prediction_id="p"))
    assert append(log, timeout, timeout._replace(prediction_id="q")) == [clicked, clicked + 1]
    assert append(log, timeout, timeout._replace(prediction_id="q")) == [clicked, clicked + 1]
    assert log.end() == clicked + 1


def test_sequence_numbers_only_grow_also_when_the_log_is_opened_again(open_log: Opener) -> None:
    first = open_log()
    seqs = append(first, entry(), entry())
    first.close()
    second = open_log()
    assert second.end() == seqs[-1]
    assert append(second, entry())[0] > seqs[-1] > seqs[0] > 0


def test_an_empty_log_ends_at_zero(log: FeedbackLog) -> None:
    assert (log.end(), log.read(0, 10), log.fetch([1])) == (0, [], {})


def test_a_glance_at_the_end_knows_of_own_appends_at_once_and_of_others_soon(open_log: Opener) -> None:
    first, second = open_log(), open_log()
    assert first.end() == 0
    append(second, entry())
    assert first.end(within=1000) == 0
    assert first.end(within=0) == second.end(within=1000) == 1
    append(first, entry())
    assert first.end(within=1000) == 2


def test_pages_of_any_size_are_a_partition_of_the_log(log: FeedbackLog) -> None:
    append(log, *(entry(label=str(number)) for number in range(20)))
    for size in (1, 3, 7, 50):
        after, labels = 0, []
        while page := log.read(after, size):
            assert len(page) <= size
            labels += [int(found.label) for found in page]
            after = page[-1].seq
        assert labels == list(range(20))


def test_a_known_key_gets_its_first_place_in_any_process(open_log: Opener) -> None:
    first, second = open_log(), open_log()
    seqs = append(first, entry(key="k"))
    assert append(second, entry(key="k")) == append(first, entry(key="k")) == seqs
    assert first.end() == seqs[0]


def test_a_key_twice_in_one_append_is_one_entry(log: FeedbackLog) -> None:
    first, second = append(log, entry(key="k"), entry(key="k"))
    assert first == second


def test_a_key_with_other_content_is_refused_with_the_whole_append(log: FeedbackLog) -> None:
    append(log, entry(key="k"))
    with pytest.raises(KeyReused) as refused:
        append(log, entry(), entry(key="k", digest=b"other"))
    assert refused.value.index == 1
    assert log.end() == 1


def test_a_missing_instance_is_refused_unless_the_key_is_known(log: FeedbackLog) -> None:
    (seq,) = append(log, entry(key="k"))
    assert append(log, entry(instance=None, key="k")) == [seq]
    with pytest.raises(MissingInstance) as refused:
        append(log, entry(), entry(instance=None, key="new"))
    assert refused.value.index == 1
    assert log.end() == seq


def test_a_refused_append_harms_none_that_is_committed_with_it(log: FeedbackLog) -> None:
    append(log, *(entry(key=f"k{number}") for number in range(20)))
    good = [log.append([entry(label='"good"')] * 2) for _ in range(20)]
    bad = [log.append([entry(label='"bad"'), entry(key=f"k{number}", digest=b"other")]) for number in range(20)]
    more = [log.append([entry(label='"good"')] * 2) for _ in range(20)]
    assert all(isinstance(future.exception(10), KeyReused) for future in bad)
    seqs = [seq for future in good + more for seq in future.result(10)]
    assert [found.seq for found in log.read(20, 1000)] == sorted(seqs)
    assert {log.fetch([seq])[seq].label for seq in seqs} == {'"good"'}


def test_an_append_that_nobody_waits_for_any_more_is_made_and_harms_none_after_it(log: FeedbackLog) -> None:
    left = log.append([entry()])
    left.cancel()
    assert log.append([entry()]).result(10) == [2]
    assert log.end() == 2


def test_an_append_that_no_database_can_hold_is_told_and_harms_none_after_it(log: FeedbackLog) -> None:
    half_a_character = "\ud800"
    with pytest.raises(UnicodeEncodeError):
        append(log, entry(key=half_a_character))
    assert append(log, entry()) == [1]


def test_a_reader_that_waits_is_woken_by_another_process(open_log: Opener) -> None:
    reader, writer = open_log(), open_log()
    reader.wait(0)  # from here on it listens
    woken: list[float] = []

    def wait() -> None:
        reader.wait(20)
        woken.append(time.monotonic())

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    append(writer, entry())
    thread.join(5)
    assert woken


def test_a_ring_before_the_wait_is_not_lost(open_log: Opener) -> None:
    reader, writer = open_log(), open_log()
    reader.wait(0)
    append(writer, entry())
    began = time.monotonic()
    reader.wait(20)
    assert time.monotonic() - began < 5


def test_writers_in_many_threads_and_views_get_one_total_order(open_log: Opener) -> None:
    logs = [open_log() for _ in range(3)]

    def write(number: int) -> list[int]:
        return append(logs[number % 3], entry(label=f'"{number}"'), entry(label=f'"{number}"'))

    with ThreadPoolExecutor(12) as pool:
        places = list(pool.map(write, range(60)))
    seqs = [seq for pair in places for seq in pair]
    assert sorted(seqs) == [found.seq for found in logs[0].read(0, 1000)]
    assert len(set(seqs)) == 120
    for number, pair in enumerate(places):
        assert pair[1] == pair[0] + 1  # one append stays together
        assert logs[1].fetch(pair)[pair[0]].label == f'"{number}"'


def test_a_closed_log_takes_nothing_more(log: FeedbackLog) -> None:
    future = log.append([entry()])
    log.close()
    assert future.result(0) == [1]
    with pytest.raises(StoreUnavailable):
        log.append([entry()])


keyed = st.tuples(st.sampled_from(["k1", "k2", "k3", None]), st.sampled_from([b"d1", b"d2"]))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(keyed, min_size=1, max_size=4), max_size=12))
def test_any_sequence_of_appends_is_all_or_nothing_with_one_entry_per_key(
    appends: list[list[tuple[str | None, bytes]]],
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(EmbeddedFeedbackLog(DataDirectory(Path(folder) / "data").create())) as log,
    ):
        known: dict[str, tuple[int, bytes]] = {}
        last = 0
        for items in appends:
            try:
                seqs = append(log, *(entry(key=key, digest=digest) for key, digest in items))
            except KeyReused:
                assert log.end() == last
                continue
            for (key, digest), seq in zip(items, seqs, strict=True):
                assert known.setdefault(key, (seq, digest)) == (seq, digest) if key else seq > last
                last = max(last, seq)
            assert log.end() == last


def test_a_key_is_found_among_its_kind_and_may_come_once_in_each(log: FeedbackLog) -> None:
    label = NewEntry(instance=b"x", label='"a"', digest=b"d", key="k")
    named = NewEntry(kind="class", instance=b"", label="{}", digest=b"e", key="k")
    first, second = log.append([label, named]).result(10)
    assert (log.find("feedback", "k"), log.find("class", "k"), log.find("class", "other")) == ([first], [second], [])
    assert [entry.kind for entry in log.read(0, 10)] == ["feedback", "class"]


def test_a_key_belongs_to_its_source_and_a_class_to_all(log: FeedbackLog) -> None:
    mine, theirs = (NewEntry(instance=b"x", label='"a"', digest=each, key="k", source=each.decode()) for each in (b"m", b"t"))
    (first,), (second,) = (log.append([each]).result(10) for each in (mine, theirs))
    assert first != second
    assert log.append([mine]).result(10) == [first]
    assert log.find("feedback", "k") == [first, second]
    one, other = (
        NewEntry(kind="class", instance=b"", label="{}", digest=b, key="zebra", source=b.decode()) for b in (b"m", b"t")
    )
    log.append([one]).result(10)
    with pytest.raises(KeyReused):
        log.append([other]).result(10)


def test_what_a_source_has_brought_is_found_up_to_a_place(log: FeedbackLog) -> None:
    entries = [NewEntry(instance=b"x", label='"a"', digest=b"", source=source) for source in ("one", "two", "one", None, "one")]
    seqs = log.append(entries).result(10)
    assert log.brought_by("one", seqs[4]) == [seqs[0], seqs[2]]
    assert log.brought_by("nobody", seqs[4]) == []
    assert log.has_brought("one")
    assert not log.has_brought("nobody")


def test_an_erased_entry_leaves_a_tombstone_that_knows_its_key(log: FeedbackLog) -> None:
    entry = NewEntry(instance=b"secret", label='"private"', digest=b"d", key="order", source="one", prediction_id="ab")
    (seq,) = log.append([entry]).result(10)
    log.erase([seq])
    log.erase([seq, 10**6])
    left = log.fetch([seq])[seq]
    assert (left.kind, left.instance, left.label, left.prediction_id, left.source) == ("forgotten", b"", "null", None, "one")
    assert left.key not in (None, "order")
    assert log.find("feedback", "order") == []
    assert log.append([entry]).result(10) == [seq]
    assert log.brought_by("one", 10**6) == []


def test_the_name_of_an_erased_class_is_free_again_and_nobodys_key(log: FeedbackLog) -> None:
    for _ in range(2):
        log.erase(append(log, NewEntry(kind="class", instance=b"", label="{}", digest=b"d", key="zebra")))
    (label,) = append(log, entry(key="zebra"))
    assert log.fetch([label])[label].kind == "feedback"
    log.erase([label])
    assert append(log, entry(key="zebra")) == [label]


def test_acts_are_found_by_their_kind_and_are_never_erased(log: FeedbackLog) -> None:
    acts = [NewEntry(kind=kind, instance=b"", label="{}", digest=b"") for kind in ("forget", "rollback", "forget")]
    seqs = log.append(acts).result(10)
    log.erase(seqs)
    assert [act.seq for act in log.acts("forget")] == [seqs[0], seqs[2]]


def test_the_secret_of_a_log_stays(open_log: Opener) -> None:
    assert len(open_log().secret()) == 32
    assert open_log().secret() == open_log().secret()
