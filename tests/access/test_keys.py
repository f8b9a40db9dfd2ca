from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.access import AccessError, Caller
from service.access.keys import Keys, add_key, read_keys, remove_key, rotate_key

SHOP = Caller("shop", frozenset({"predict", "feedback"}))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_says_who_calls_and_nothing_else_does(path: Path) -> None:
    key = add_key(path, "shop", ["predict", "feedback"])
    keys = Keys(path)
    assert keys.caller(key) == SHOP
    for wrong in ("", key[:-1], key + "x", key.swapcase(), "\ud7ff", read_keys(path).keys[0].secrets[0].sha256):
        assert keys.caller(wrong) is None


def test_a_key_has_256_random_bits_and_only_its_hash_is_kept(path: Path) -> None:
    made = [add_key(path, f"k{number}", ["predict"]) for number in range(20)]
    assert len(set(made)) == 20
    assert all(key.startswith("everlearn_") and len(key) == len("everlearn_") + 43 for key in made)
    kept = path.read_text()
    assert not any(key.removeprefix("everlearn_") in kept for key in made)


def test_two_secrets_are_valid_while_a_key_is_rotated_and_one_after(path: Path) -> None:
    first = add_key(path, "shop", ["predict", "feedback"])
    keys = Keys(path)
    second = rotate_key(path, "shop", timedelta(hours=1))
    assert keys.caller(first) == keys.caller(second) == SHOP
    third = rotate_key(path, "shop", timedelta(0))
    assert [keys.caller(key) for key in (first, second, third)] == [None, None, SHOP]


def test_rotating_never_makes_an_old_secret_live_longer(path: Path) -> None:
    add_key(path, "shop", ["predict"])
    soon = datetime.now(UTC) + timedelta(minutes=1)
    file = json.loads(path.read_text())
    file["keys"][0]["secrets"][0]["expires_at"] = soon.isoformat()
    path.write_text(json.dumps(file))
    rotate_key(path, "shop", timedelta(days=1))
    assert read_keys(path).keys[0].secrets[0].expires_at == soon


def test_a_key_that_is_removed_is_refused_at_once(path: Path) -> None:
    kept, gone = add_key(path, "kept", ["predict"]), add_key(path, "gone", ["predict"])
    keys = Keys(path)
    remove_key(path, "gone")
    assert keys.caller(gone) is None
    assert keys.caller(kept) is not None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'{"keys": [{"name": "x"}]}',
        b'{"keys": [{"name": "../x", "scopes": ["predict"], "secrets": []}]}',
        b'{"keys": [], "more": 1}',
        b" " * (2**20 + 1),
    ],
)
def test_a_broken_file_keeps_the_last_good_one_and_the_log_says_so(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    key = add_key(path, "shop", ["predict"])
    keys = Keys(path)
    path.write_bytes(content)
    assert keys.caller(key) is not None
    assert keys.caller(key) is not None
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["access.unreadable"]
    assert str(path.parent) not in caplog.text
    other = Path(path).with_name("other")
    remade = add_key(other, "shop", ["predict"])
    os.replace(other, path)
    assert keys.caller(key) is None
    assert keys.caller(remade) is not None


def test_a_file_that_goes_away_keeps_the_last_good_one(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = add_key(path, "shop", ["predict"])
    keys = Keys(path)
    path.unlink()
    assert keys.caller(key) is not None
    assert "access.unreadable: keys.json: No such file" in caplog.text


def test_a_file_that_is_broken_from_the_start_is_refused(path: Path) -> None:
    path.write_text('{"keys": [{"name": "everlearn_secret-in-the-wrong-place!"}]}')
    with pytest.raises(AccessError, match=r"keys\.json can't be read: keys\.0\.") as raised:
        Keys(path)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("name", ["", "a b", "../x", "a\n", "é", "x" * 65, "-x"])
def test_a_name_that_could_be_mistaken_is_refused(path: Path, name: str) -> None:
    with pytest.raises(AccessError):
        add_key(path, name, ["predict"])
    assert not path.exists()


def test_a_name_is_given_once_and_must_be_there_to_be_changed(path: Path) -> None:
    add_key(path, "shop", ["predict"])
    with pytest.raises(AccessError, match="rotate"):
        add_key(path, "shop", ["admin"])
    with pytest.raises(AccessError, match="no key of the name 'other'"):
        rotate_key(path, "other", timedelta(0))
    with pytest.raises(AccessError, match="no key of the name 'other'"):
        remove_key(path, "other")


def test_commands_that_race_lose_nothing(path: Path) -> None:
    threads = [threading.Thread(target=add_key, args=(path, f"k{number}", ["predict"])) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {holder.name for holder in read_keys(path).keys} == {f"k{number}" for number in range(20)}
