"""Whether a request may come in: its key, against those that are known here.

All is in memory: every process reads the keys again when told of a change, and at least every
`POLL_S`. Without Redis the last known ones stay valid, until they expire.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from hmac import compare_digest

from serving.access.keys import ANYONE, Caller, Key, MissingScope, NoKey, digest
from serving.access.opening import ForeignPage, foreign
from serving.access.rates import Rates
from serving.access.scopes import scope_of
from serving.access.store import KeyStore
from serving.store.keys import StoreUnavailable
from serving.store.waiting import end

log = logging.getLogger(__name__)

POLL_S = 0.5
READS = ("GET", "HEAD")  # where a browser's own dialogue will do

Headers = Iterable[tuple[bytes, bytes]]
Known = dict[bytes, tuple[bytes, Key, int | None]]  # digest -> itself, its key, until when


class Guard:
    """`may_be_open`: anybody may come in while there are no keys, and by `any_name`."""

    def __init__(
        self,
        store: KeyStore,
        clock_ms: Callable[[], int],
        *,
        may_be_open: bool,
        any_name: bool = False,
    ) -> None:
        self.store = store
        self._clock_ms = clock_ms
        self._rates = Rates(store.reserve, clock_ms)
        self._open, self._any_name = may_be_open, any_name
        self._known: Known | None = None  # not read yet
        self._used_ms: dict[str, int] = {}
        self._decided: Counter[tuple[str, str]] = Counter()  # by key and policy
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        with suppress(StoreUnavailable):  # until it is back, nobody comes in
            await self.refresh()
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._task is not None:
            await end([self._task])

    async def _follow(self) -> None:
        async for _ in self.store.hints(POLL_S):
            try:
                with suppress(StoreUnavailable):  # the last known keys stand
                    await self.refresh()
            except Exception:
                log.exception("can't read the keys")

    async def refresh(self) -> None:
        """Read the keys, and keep when they were used, and for how many decisions.

        Raises
        ------
        StoreUnavailable
        """
        keys = await self.store.all()
        # Once there were keys, an emptied store opens nothing.
        self._open = self._open and not keys
        self._known = {
            bytes.fromhex(one.sha256): (bytes.fromhex(one.sha256), key, one.expires_at_ms)
            for key in keys
            for one in key.digests
        }
        used, self._used_ms = self._used_ms, {}
        if used:
            await self.store.used(used)
        for (key_id, policy), n in list(self._decided.items()):
            await self.store.add_decisions(policy, key_id, n, self._clock_ms())
            self._decided[key_id, policy] -= n
            if not self._decided[key_id, policy]:
                del self._decided[key_id, policy]

    async def admit(self, method: str, path: str, headers: Headers) -> Caller | None:
        """Who asks for a path; None where nobody needs to be known.

        Raises
        ------
        NoSuchPath, NoKey, MissingScope, ForeignPage, TooManyRequests
        StoreUnavailable
            If no keys could be read since the process started.
        """
        scope = scope_of(path)
        if scope is None:
            return None
        if self._known is None:
            raise StoreUnavailable("keys couldn't be read from Redis yet")
        if self._open:
            if why := foreign(headers, any_name=self._any_name):
                raise ForeignPage(f"without keys {why} isn't answered: make one, or say --open")
            return Caller(ANYONE, scope, self._decided)
        key = self._key(self._known, _secret(headers, method in READS))
        if scope not in key.scopes:
            raise MissingScope(scope, None)
        if key.requests_per_minute is not None:
            await self._rates.take(key.id, key.requests_per_minute)
        return Caller(key, scope, self._decided)

    def _key(self, keys: Known, secret: bytes) -> Key:
        now_ms = self._clock_ms()
        given = digest(secret)
        known = keys.get(given)
        # A look-up by the digest tells nothing by its time: nobody can choose a secret by its
        # digest's first bits. The comparison that counts takes the same time wherever they differ.
        if known is None or not compare_digest(known[0], given):
            raise NoKey("this key is not known")
        _, key, until_ms = known
        why = key.invalid(now_ms)
        if why is None and until_ms is not None and now_ms >= until_ms:
            why = "was replaced"
        if why is not None:
            raise NoKey(f"this key {why}")
        self._used_ms[key.id] = now_ms
        return key


def _secret(headers: Headers, by_browser: bool) -> bytes:
    """The secret of the first Authorization header."""
    for name, value in headers:
        if name == b"authorization":
            kind, _, given = value.partition(b" ")
            if kind.lower() == b"bearer":
                return given.strip()
            if kind.lower() == b"basic" and by_browser:
                return _password(given)
            break
    raise NoKey(
        "this service wants a key: `Authorization: Bearer pm_...` (in clients `api_key`, or "
        "POINTSMAN_API_KEY)"
    )


def _password(given: bytes) -> bytes:
    """Of HTTP's Basic scheme, in which the user's name is free."""
    try:
        return b64decode(given, validate=True).partition(b":")[2]
    except ValueError:
        return b""
