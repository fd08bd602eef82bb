"""How Redis is reached, and how that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis.asyncio
from redis import exceptions
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff

from serving.store.keys import StoreUnavailable

CONNECTION: dict[str, Any] = {"socket_timeout": 5.0, "socket_connect_timeout": 2.0}
SERVING_TIMEOUT_S = 2.0
_RETRIES = 4
_NO_WRITES = ("NOREPLICAS", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "LOADING")


def connect(url: str) -> Any:
    """Connections for serving. Their type is Any, for redis-py's allows str wherever bytes come
    back."""
    # A lost connection is tried again at once; a server that hangs is not waited for twice.
    lost = (exceptions.ConnectionError,)
    retry = AsyncRetry(ExponentialBackoff(cap=0.2, base=0.01), _RETRIES, supported_errors=lost)
    return redis.asyncio.Redis.from_url(
        url, retry=retry, socket_timeout=SERVING_TIMEOUT_S, socket_connect_timeout=1.0
    )


@contextmanager
def reachable() -> Iterator[None]:
    """Every failure that says nothing of the request as one exception."""
    try:
        yield
    except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
        raise StoreUnavailable(f"Redis can't be reached: {error}") from error
    except exceptions.OutOfMemoryError as error:
        raise StoreUnavailable("Redis is at its memory limit and takes no writes") from error
    except (exceptions.BusyLoadingError, exceptions.ReadOnlyError) as error:
        raise StoreUnavailable(f"Redis takes no writes now: {error}") from error
    except exceptions.ResponseError as error:
        if str(error).startswith(_NO_WRITES):
            raise StoreUnavailable(f"Redis takes no writes now: {error}") from error
        raise


def answers(url: str) -> bool:
    """Whether a server answers at this address now; no second try."""
    client = redis.Redis.from_url(url, retry=None, socket_timeout=1.0, socket_connect_timeout=1.0)
    try:
        return bool(client.ping())
    except (exceptions.RedisError, OSError):
        return False
    finally:
        client.close()
