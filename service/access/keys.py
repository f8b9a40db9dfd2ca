"""API keys: random, shown once, and kept as hashes in a small file.

A key has 256 random bits, so its plain SHA-256 is enough: nobody can try them all, and the slow, salted hashes that passwords
need would only slow down every request.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from service.access.callers import AccessError, Caller, Scope
from service.access.watched import Watched
from service.store.embedded.directory import write_durably

PREFIX = "everlearn_"  # so that scanners for secrets in repositories know one when they see it
BITS = 256

KeyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]


class Secret(BaseModel):
    """The hash of one key, and until when it is valid."""

    model_config = ConfigDict(extra="forbid")
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None

    def valid(self, now: datetime) -> bool:
        """Return whether it has not expired."""
        return self.expires_at is None or now < self.expires_at


class Holder(BaseModel):
    """A name, what it may do, and its secrets: two while they are rotated."""

    model_config = ConfigDict(extra="forbid")
    name: KeyName
    scopes: Annotated[list[Scope], Field(min_length=1)]
    secrets: Annotated[list[Secret], Field(min_length=1, max_length=2)]


class KeyFile(BaseModel):
    """The file of keys."""

    model_config = ConfigDict(extra="forbid")
    keys: list[Holder] = []

    def holder(self, name: str) -> Holder:
        """Return the one of this name. Raises AccessError."""
        for holder in self.keys:
            if holder.name == name:
                return holder
        raise AccessError(f"there is no key of the name {name!r}")


class Keys:
    """Tells from a key who calls."""

    def __init__(self, path: Path) -> None:
        """Read the file; none means that there are no keys yet. Raises AccessError for one that can't be read."""
        self._file: Watched[list[tuple[Secret, Caller]]] = Watched(path, _secrets, absent=[])

    def __len__(self) -> int:
        return len(self._file.now)

    def caller(self, credential: str) -> Caller | None:
        """Return who has this key. Every hash is compared, in constant time, whichever of them it is."""
        digest = hashlib.sha256(credential.encode()).hexdigest()
        now = datetime.now(UTC)
        found = None
        for secret, caller in self._file.now:
            if hmac.compare_digest(secret.sha256, digest) and secret.valid(now):
                found = caller
        return found


def read_keys(path: Path) -> KeyFile:
    """Return what the file says, nothing where it is not there. Raises AccessError."""
    return Watched(path, _parse, absent=KeyFile()).now


def add_key(path: Path, name: str, scopes: Sequence[Scope]) -> str:
    """Make a key of a new name and return it: it is shown this once. Raises AccessError."""
    made, secret = _new()

    def change(file: KeyFile) -> None:
        if any(holder.name == name for holder in file.keys):
            raise AccessError(f"there is a key of the name {name!r}; `everlearn keys rotate` gives it a new secret")
        try:
            file.keys.append(Holder(name=name, scopes=list(dict.fromkeys(scopes)), secrets=[secret]))
        except ValidationError as exc:
            raise AccessError(_first_line(exc)) from exc

    _change(path, change)
    return made


def rotate_key(path: Path, name: str, keep: timedelta) -> str:
    """Make another secret for a name and return it. The one before is valid for a while. Raises AccessError."""
    made, secret = _new()

    def change(file: KeyFile) -> None:
        holder = file.holder(name)
        last = holder.secrets[-1]
        end = secret.created_at + keep
        last.expires_at = end if last.expires_at is None else min(last.expires_at, end)
        holder.secrets = [last, secret]

    _change(path, change)
    return made


def remove_key(path: Path, name: str) -> None:
    """Forget a name with all its secrets. Raises AccessError."""
    _change(path, lambda file: file.keys.remove(file.holder(name)))


def _new() -> tuple[str, Secret]:
    made = PREFIX + secrets.token_urlsafe(BITS // 8)
    return made, Secret(sha256=hashlib.sha256(made.encode()).hexdigest(), created_at=datetime.now(UTC))


def _secrets(data: bytes) -> list[tuple[Secret, Caller]]:
    return [
        (secret, Caller(holder.name, frozenset(holder.scopes))) for holder in _parse(data).keys for secret in holder.secrets
    ]


def _parse(data: bytes) -> KeyFile:
    """Read a file of keys. Raises ValueError."""
    try:
        file = KeyFile.model_validate_json(data)
    except ValidationError as exc:
        raise ValueError(_first_line(exc)) from exc
    names = [holder.name for holder in file.keys]
    if len(set(names)) < len(names):
        raise ValueError("a name is there twice")
    return file


def _change(path: Path, change: Callable[[KeyFile], None]) -> None:
    with _locked(path.parent):
        file = read_keys(path)
        change(file)
        write_durably(path, file.model_dump_json(indent=2).encode() + b"\n")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one command at a time change the keys of a folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as exc:
        raise AccessError(f"{folder} can't be opened: {exc.strerror}") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _first_line(exc: ValidationError) -> str:
    """Say what is wrong and where, without the value: it may be a secret in the wrong place."""
    error = exc.errors(include_input=False)[0]
    return f"{'.'.join(map(str, error['loc'])) or 'the file'}: {error['msg']}"
