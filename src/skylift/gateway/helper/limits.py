"""Limits that several gateways share: a script in Redis or Valkey decides, atomically, by its clock."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from skylift.core.errors import Unavailable
from skylift.gateway.limits import Outcome, Verdict
from skylift.gateway.policies import RateLimit
from skylift.gateway.policies import Redis as Store

SCRIPT = (files("skylift.gateway.helper") / "limits.lua").read_text()
PREFIX = "skylift:limit"


@dataclass
class Limits:
    """Connections to the stores that rules name, each kept."""

    _stores: dict[Store, tuple[Redis, AsyncScript]] = field(default_factory=dict)

    async def take(self, policy: RateLimit, key: str, now: float = 0.0) -> Outcome:
        """One request of `key`. `now` 0: the store's own clock. Raises Unavailable when the store fails."""
        assert policy.redis is not None, "the compiler sends only limits that are shared"
        _, script = self._store(policy.redis)
        words: list[Any] = [
            str(policy.algorithm),
            repr(now),
            int(policy.counts_refused),
            policy.max_delay,
        ]
        for limit in policy.limits:
            words += [limit.count, limit.seconds, limit.burst]
        try:
            said = await script(keys=list(_keys(policy, key)), args=words)
        except (RedisError, OSError, TimeoutError) as e:
            raise Unavailable(f"{policy.redis.host}:{policy.redis.port} does not count: {e}") from e
        numbers = [float(text) for text in said]
        return Outcome(
            tuple(
                Verdict(bool(passed), limit, int(left), reset, retry, delay)
                for limit, (passed, left, reset, retry, delay) in zip(
                    policy.limits, zip(*[iter(numbers)] * 5, strict=True), strict=True
                )
            )
        )

    def _store(self, store: Store) -> tuple[Redis, AsyncScript]:
        if store not in self._stores:
            made = Redis(
                host=store.host,
                port=store.port,
                db=store.database,
                username=store.username or None,
                password=store.password or None,
                ssl=store.tls,
                socket_timeout=store.timeout,
                socket_connect_timeout=store.timeout,
            )
            self._stores[store] = made, made.register_script(SCRIPT)
        return self._stores[store]

    async def close(self) -> None:
        for store, _ in self._stores.values():
            await store.aclose()


def _keys(policy: RateLimit, key: str) -> Iterable[str]:
    """One a limit; what stands in braces lies on one node of a cluster. Other numbers count anew."""
    for place, limit in enumerate(policy.limits):
        numbers = f"{place}:{limit.count}/{limit.seconds:g}/{limit.burst}"
        yield f"{PREFIX}:{{{policy.bucket}:{key}}}:{policy.algorithm}:{numbers}"
