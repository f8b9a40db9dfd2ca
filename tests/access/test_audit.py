from __future__ import annotations

import multiprocessing
import resource
from pathlib import Path

import pytest

from service.access import AuditLog
from service.access.audit import local_source
from service.store import StoreUnavailable


def write_many(path: Path, source: str) -> None:
    for number in range(50):
        AuditLog(path).append({"source": source, "act": "x" * 2000, "number": number})


def test_records_come_back_in_order_with_their_time(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "audit.jsonl")
    assert list(audit.read()) == []
    audit.append({"act": "one"})
    audit.append({"act": "two\nlines"})
    assert [record["act"] for record in audit.read()] == ["one", "two\nlines"]
    assert all(record["at"].endswith("+00:00") for record in audit.read())
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("half", [b'{"act": "ha', b'{"act": "half"}', b"\x00" * 100, b"3"])
def test_a_line_that_a_power_cut_left_half_written_costs_only_itself(tmp_path: Path, half: bytes) -> None:
    path = tmp_path / "audit.jsonl"
    AuditLog(path).append({"act": "before"})
    with path.open("ab") as file:
        file.write(half)
    AuditLog(path).append({"act": "after"})
    acts = [record["act"] for record in AuditLog(path).read()]
    assert acts[0] == "before"
    assert acts[-1] == "after"


def test_processes_share_a_file_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write_many, args=(path, name)) for name in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    records = list(AuditLog(path).read())
    assert len(records) == 150
    for name in "abc":
        assert [record["number"] for record in records if record["source"] == name] == list(range(50))


def test_what_can_not_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"audit\.jsonl can't be written"):
        AuditLog(tmp_path / "nowhere" / "audit.jsonl").append({"act": "lost"})


def test_a_disk_that_is_full_in_the_middle_of_a_line_is_said(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    AuditLog(path).append({"act": "before"})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, limits[1]))
    try:
        with pytest.raises(StoreUnavailable):
            AuditLog(path).append({"act": "cut"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    AuditLog(path).append({"act": "after"})
    assert [record["act"] for record in AuditLog(path).read()] == ["before", "after"]


def test_a_user_without_a_name_is_on_record_by_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    assert local_source() == "local:54321"
