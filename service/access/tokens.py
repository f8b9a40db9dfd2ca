"""JSON Web Tokens (RFC 7519), signed by somebody whose public keys stand in a local file (a JWK set, RFC 7517)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from service.access.callers import SCOPES, Caller, is_source
from service.access.watched import Watched

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})
"""Signatures with a public key only: with a shared secret whoever can check a token could make one."""

FEWEST_RSA_BITS = 2048
LEEWAY_SECONDS = 30.0  # by which clocks may differ
MOST_CHARACTERS = 8192
REQUIRED = ["exp", "iss", "aud", "sub"]


class Tokens:
    """Tells from a token who calls: `sub` is the source, `scope` says what it may do."""

    def __init__(self, path: Path, *, issuer: str, audience: str) -> None:
        """Read the keys. Raises AccessError where the file can't be read."""
        self._keys: Watched[Mapping[str | None, jwt.PyJWK]] = Watched(path, _parse)
        self._issuer = issuer
        self._audience = audience

    def caller(self, credential: str) -> Caller | None:
        """Return who has this token, None where its signature, its time or one of its claims is not right."""
        try:
            claims = self._claims(credential)
        except (jwt.PyJWTError, ValueError):
            return None
        source, granted = claims["sub"], claims.get("scope", "")
        if not is_source(source) or not isinstance(granted, str):
            return None
        words = set(granted.split())
        return Caller(source, frozenset(scope for scope in SCOPES if scope in words))

    def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > MOST_CHARACTERS:
            raise jwt.InvalidTokenError
        keys = self._keys.now
        kid = jwt.get_unverified_header(token).get("kid")
        key = next(iter(keys.values())) if kid is None and len(keys) == 1 else keys.get(kid)
        if key is None:
            raise jwt.InvalidTokenError
        # The algorithm is the key's, whatever the token says of itself.
        return jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            issuer=self._issuer,
            audience=self._audience,
            leeway=LEEWAY_SECONDS,
            options={"require": REQUIRED},
        )


def _parse(data: bytes) -> dict[str | None, jwt.PyJWK]:
    """Return the keys of a set by their ids, but for those of other uses. Raises ValueError."""
    try:
        found = json.loads(data)["keys"]
        given = [dict(key) for key in found if key.get("use", "sig") == "sig"]
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ValueError("it is no JWK set") from exc
    if any("d" in key or key.get("kty") == "oct" for key in given):
        raise ValueError("it holds a private or secret key; put the public ones here only")
    keys: dict[str | None, jwt.PyJWK] = {}
    for each in given:
        kid = each.get("kid")
        key = _usable(each)
        if key is None:
            continue
        if kid in keys or not isinstance(kid, str | None):
            raise ValueError("a kid is no string, or there twice")
        keys[kid] = key
    if not keys:
        raise ValueError(f"it has no key for {', '.join(sorted(ALGORITHMS))}")
    return keys


def _usable(given: dict[str, Any]) -> jwt.PyJWK | None:
    """Return a key, None for one of an algorithm that is not taken. Raises ValueError for a broken or weak one."""
    try:
        key = jwt.PyJWK(given)
    except jwt.PyJWKError:  # a kind of key or curve that it does not know
        return None
    except jwt.PyJWTError as exc:
        raise ValueError("a key of the set is broken") from exc
    if key.algorithm_name not in ALGORITHMS:
        return None
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < FEWEST_RSA_BITS:
        raise ValueError(f"an RSA key has {key.key.key_size} bits; it takes {FEWEST_RSA_BITS}")
    return key
