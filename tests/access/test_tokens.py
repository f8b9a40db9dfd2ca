from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from service.access import AccessError, Caller
from service.access.tokens import Tokens

ISSUER, AUDIENCE = "https://login.example", "everlearn"
RSA = rsa.generate_private_key(65537, 2048)
WEAK = rsa.generate_private_key(65537, 1024)
CURVE = ec.generate_private_key(ec.SECP256R1())
EDWARDS = ed25519.Ed25519PrivateKey.generate()
SIGNERS: Mapping[str, Any] = {"RS256": RSA, "ES256": CURVE, "EdDSA": EDWARDS}
PUBLIC = {
    "RS256": RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True),
    "ES256": ECAlgorithm.to_jwk(CURVE.public_key(), as_dict=True),
    "EdDSA": OKPAlgorithm.to_jwk(EDWARDS.public_key(), as_dict=True),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [{**key, "kid": kid, "use": "sig"} for kid, key in PUBLIC.items()]}))
    return path


@pytest.fixture
def tokens(path: Path) -> Tokens:
    return Tokens(path, issuer=ISSUER, audience=AUDIENCE)


def claims(**changes: Any) -> dict[str, Any]:
    good = {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60, "sub": "shop", "scope": "openid feedback predict"}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def signed(algorithm: str = "RS256", key: Any = None, kid: str | None = None, **changes: Any) -> str:
    headers = {"kid": kid or algorithm}
    return jwt.encode(claims(**changes), key or SIGNERS[algorithm], algorithm, headers=headers)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(header: dict[str, Any], secret: bytes | None = None) -> str:
    """Return a token made by hand: without a signature, or with HMAC over what an attacker knows."""
    text = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims()).encode())}"
    return f"{text}.{'' if secret is None else b64(hmac.digest(secret, text.encode(), hashlib.sha256))}"


@pytest.mark.parametrize("algorithm", SIGNERS)
def test_a_token_says_who_calls_and_what_they_may_do(tokens: Tokens, algorithm: str) -> None:
    assert tokens.caller(signed(algorithm)) == Caller("shop", frozenset({"predict", "feedback"}))
    assert tokens.caller(signed(algorithm, scope=None)) == Caller("shop", frozenset())
    assert tokens.caller(signed(algorithm, aud=["other", AUDIENCE])) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1_000_000_000},  # long ago
        {"exp": None},
        {"exp": "tomorrow"},
        {"nbf": 10_000_000_000},  # in 2286
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "other"},
        {"aud": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "a\nb"},
        {"sub": "shop\u202e"},
        {"sub": "x" * 201},
        {"scope": ["feedback"]},
    ],
    ids=repr,
)
def test_a_token_with_a_wrong_claim_is_nobodys(tokens: Tokens, changes: dict[str, Any]) -> None:
    assert tokens.caller(signed(**changes)) is None


def test_the_algorithm_is_the_keys_whatever_the_token_says(tokens: Tokens) -> None:
    public = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    modulus = json.dumps(PUBLIC["RS256"]).encode()
    for secret in (public, modulus, b""):  # RS256's public key as HMAC's secret
        assert tokens.caller(forged({"alg": "HS256", "kid": "RS256"}, secret)) is None
    for name in ("none", "None", "NONE", ""):
        assert tokens.caller(forged({"alg": name, "kid": "RS256"})) is None
        assert tokens.caller(forged({"alg": name})) is None
    for algorithm in SIGNERS:  # a key of another kind under a kid
        for kid in SIGNERS.keys() - {algorithm}:
            assert tokens.caller(signed(algorithm, kid=kid)) is None
    assert tokens.caller(signed("RS512", RSA, kid="RS256")) is None
    assert tokens.caller(signed("PS256", RSA, kid="RS256")) is None


def test_a_key_that_the_token_brings_along_counts_for_nothing(tokens: Tokens) -> None:
    mine = ec.generate_private_key(ec.SECP256R1())
    own = ECAlgorithm.to_jwk(mine.public_key(), as_dict=True)
    for headers in ({"jwk": own}, {"jwk": own, "kid": "ES256"}, {"jku": "http://evil", "kid": "x"}, {"kid": "../../etc"}):
        assert tokens.caller(jwt.encode(claims(), mine, "ES256", headers=headers)) is None


def test_what_is_no_token_is_nobodys(tokens: Tokens) -> None:
    good = signed()
    head, body, signature = good.split(".")
    changed = b64(json.dumps(claims(sub="admin")).encode())
    crit = jwt.encode(claims(), RSA, "RS256", headers={"kid": "RS256", "crit": ["x"], "x": 1})
    for wrong in (
        "",
        ".",
        "..",
        "a.b.c",
        f"{head}.{changed}.{signature}",
        f"{head}.{body}.",
        good + "x" * 9000,
        "é" * 10,
        crit,
    ):
        assert tokens.caller(wrong) is None


def test_keys_are_read_again_when_they_change(path: Path, tokens: Tokens, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(json.dumps({"keys": [PUBLIC["ES256"]]}))
    assert tokens.caller(signed("RS256")) is None
    assert tokens.caller(jwt.encode(claims(), CURVE, "ES256")) is not None  # there is but one key: no kid is needed
    path.write_text("{")
    assert tokens.caller(jwt.encode(claims(), CURVE, "ES256")) is not None
    assert "access.unreadable: jwks.json" in caplog.text


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ([], "it has no key for"),
        ([{"kty": "oct", "k": "c2VjcmV0"}], "private or secret"),
        ([RSAAlgorithm.to_jwk(RSA, as_dict=True)], "private or secret"),
        ([RSAAlgorithm.to_jwk(WEAK.public_key(), as_dict=True)], "1024 bits"),
        ([{**PUBLIC["RS256"], "use": "enc"}], "it has no key for"),
        ([{**PUBLIC["RS256"], "alg": "RS512"}], "it has no key for"),
        ([{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}], "broken"),
        ([PUBLIC["RS256"], PUBLIC["ES256"]], "there twice"),
        ([3], "no JWK set"),
    ],
    ids=range(9),
)
def test_a_set_of_keys_that_is_of_no_use_is_refused(tmp_path: Path, keys: list[Any], says: str) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": keys}))
    with pytest.raises(AccessError, match=says):
        Tokens(tmp_path / "jwks.json", issuer=ISSUER, audience=AUDIENCE)


def test_a_set_of_keys_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="No such file"):
        Tokens(tmp_path / "jwks.json", issuer=ISSUER, audience=AUDIENCE)
