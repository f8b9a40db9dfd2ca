from __future__ import annotations

import time
from collections.abc import Callable

from service.store import Prediction, PredictionJournal
from tests.running import wait_for

Opener = Callable[..., PredictionJournal]


def prediction(number: int, size: int = 10) -> Prediction:
    return Prediction(f"{number:032x}", number, bytes([number % 256]) * size, f'{{"value": {number}}}')


def test_a_prediction_is_found_at_once_and_after_it_was_written(open_journal: Opener) -> None:
    journal = open_journal()
    journal.put([prediction(1), prediction(2)])
    ids = [prediction(1).id, prediction(2).id, prediction(3).id]
    expected = {id: prediction(number) for id, number in zip(ids[:2], (1, 2), strict=True)}
    assert journal.get(ids) == expected
    time.sleep(0.2)
    assert journal.get(ids) == expected


def test_another_process_finds_it_a_moment_later_and_a_reopened_journal_too(open_journal: Opener) -> None:
    first, second = open_journal(), open_journal()
    first.put([prediction(1)])
    wait_for(lambda: second.get([prediction(1).id]), "the other process to see it", 5)
    first.put([prediction(2)])
    first.close()
    assert open_journal().get([prediction(2).id])


def test_predictions_of_an_age_are_listed_in_order_from_a_place_on(open_journal: Opener) -> None:
    journal = open_journal()
    journal.put([prediction(1), prediction(2), prediction(3)])
    wait_for(lambda: len(journal.older(0, 0, 10)[0]) == 3, "the journal to write", 5)
    first, place = journal.older(0, 0, 2)
    rest, end = journal.older(0, place, 2)
    assert [*first, *rest] == [prediction(1), prediction(2), prediction(3)]
    assert journal.older(0, end, 2) == ([], end)
    assert journal.older(30, 0, 10) == ([], 0)


def test_closing_writes_what_waits(open_journal: Opener) -> None:
    first = open_journal()
    first.put([prediction(number) for number in range(1000)])
    first.close()
    assert len(open_journal().get([prediction(number).id for number in range(1000)])) == 1000


def test_an_id_that_was_never_given_out_finds_nothing(open_journal: Opener) -> None:
    journal = open_journal()
    journal.put([prediction(1)])
    assert journal.get(["", "nonsense", "ff" * 16, "' OR 1=1 --"]) == {}


def test_a_prediction_that_is_too_old_is_unknown(open_journal: Opener) -> None:
    journal = open_journal(max_age=0.3)
    journal.put([prediction(1)])
    time.sleep(0.6)
    journal.put([prediction(2)])
    time.sleep(0.1)
    assert journal.get([prediction(1).id, prediction(2).id]).keys() == {prediction(2).id}


def test_the_oldest_go_when_it_is_too_large_and_the_newest_stay(open_journal: Opener) -> None:
    journal = open_journal(max_bytes=2_000_000)
    for number in range(300):
        journal.put([prediction(number, 50_000)])
        time.sleep(0.002)
    time.sleep(0.3)
    assert journal.get([prediction(0).id]) == {}
    kept = sum(bool(journal.get([prediction(number).id])) for number in range(300))
    assert kept < 100
