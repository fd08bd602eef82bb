"""Decisions that couldn't be logged, signed, so that their callers can carry them until they can
be. Knows no Redis.

A token is `pmt1.PAYLOAD.MAC`, both in base64url: deflated JSON of the decision as it is logged, and
HMAC-SHA256. It can be read by whoever has it, and holds nothing of the query but its context.
"""

from __future__ import annotations

import binascii
import hmac
import os
import secrets
import zlib
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import orjson

from policy import records
from policy.records import Decision

FORMAT = b"pmt1"
FILE = "token.secret"  # under the data folder


class WrongToken(ValueError):
    """A token that no process with this secret has signed."""


class Tokens:
    """Signs and reads; without a secret it reads none."""

    def __init__(self, secret: bytes | None) -> None:
        self._secret = secret

    def sign(self, decision: Decision, digest: str) -> str:
        """A decision without its query's text, and the digest of the request that it answers."""
        assert self._secret is not None, "who signs has a secret"
        other = decision.challenger_x
        content = {
            "request": digest,
            "record": records.to_stored(replace(decision, query=None)).decode(),
            "x": binascii.b2a_base64(decision.x.tobytes(), newline=False).decode(),
            "challenger_x": None
            if other is None
            else binascii.b2a_base64(other.tobytes(), newline=False).decode(),
        }
        signed = FORMAT + b"." + urlsafe_b64encode(zlib.compress(orjson.dumps(content)))
        return (signed + b"." + urlsafe_b64encode(_mac(self._secret, signed))).decode()

    def read(self, token: str) -> tuple[Decision, str]:
        """What was signed.

        Raises
        ------
        WrongToken
        """
        signed, _, mac = token.encode("utf-8", "replace").rpartition(b".")
        try:
            given = urlsafe_b64decode(mac)
        except binascii.Error:
            given = b""
        if self._secret is None or not hmac.compare_digest(given, _mac(self._secret, signed)):
            raise WrongToken("was changed, or signed with another secret than this service's")
        format_, _, payload = signed.partition(b".")
        if format_ != FORMAT:  # only another release signs what this one can't read
            raise WrongToken("was made by another release")
        content = orjson.loads(zlib.decompress(urlsafe_b64decode(payload)))
        x, other = b64decode(content["x"]), content["challenger_x"]
        record = content["record"].encode()
        decision = records.from_stored(record, x, None if other is None else b64decode(other))
        return decision, content["request"]


def _mac(secret: bytes, signed: bytes) -> bytes:
    return hmac.digest(secret, signed, "sha256")


def secret_of(given: str | None, data: Path, *, make: bool) -> bytes | None:
    """What is signed with: `given`, or the secret that all processes on the data folder share, made
    if need be; None where there is none.

    Raises
    ------
    ValueError
        If the file holds something else.
    OSError
        If it can't be read or made.
    """
    if given is not None:
        return given.encode()
    path = data / FILE
    if make and not path.exists():
        data.mkdir(parents=True, exist_ok=True)
        whole = data / f"{FILE}.{secrets.token_hex(4)}"
        with os.fdopen(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        with suppress(FileExistsError):  # another process was first
            os.link(whole, path)
        whole.unlink()
    try:
        secret = bytes.fromhex(path.read_text("ascii"))
    except FileNotFoundError:
        return None
    except ValueError:
        secret = b""
    if len(secret) != 32:
        raise ValueError(f"{path}: expected 64 hex digits; without the file a new one is made")
    return secret
