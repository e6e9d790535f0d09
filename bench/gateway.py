"""The gateway beside bare Envoy, caddy and a Python proxy: CPU for a request, medians of interleaved rounds.

One worker each, on one core; the load (wrk) and the backend (nginx) on the other; kept-alive connections, the
same headers for everybody. What a proxy costs is the CPU its processes used, divided by the requests that
were answered: that holds on a machine where others work too. Ratios are medians over rounds in which every
proxy had its turn. Beside them stand the instructions of each Envoy outside the kernel for a request, counted
by callgrind, which are the same on every machine and at every hour.

Then: the last of 2,000 routes against the first, reloads and swaps under load, how long 2,000 routes take to
be compiled, validated and in place, and a region that comes back at once before a real fleet server.

What is not installed (wrk, nginx, caddy, valgrind) is left out, and so are its figures.

    python3 dev.py bench gateway [--json] [--rounds N] [--seconds N] [--herd N]
"""

import argparse
import json
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from joserfc import jwt
from joserfc.jwk import OctKey

from parts.gateway_herd import herd
from parts.gateway_instructions import instructions
from parts.gateway_proxies import (
    Proxy,
    Setup,
    backend,
    bare,
    caddy,
    load,
    ours,
    python_proxy,
    running,
    sliding_window,
)
from parts.gateway_reloads import many, publishing, reloads
from parts.shell import say

SECRET = "a secret that is longer than thirty-two bytes"  # noqa: S105 - the bench's own

SERVICE = """
_format_version: "3.0"
services:
  - name: things
    url: http://127.0.0.1:{backend}
    retries: 0
    routes: [{{name: things, paths: [/things], strip_path: false}}]
"""
FULL = """
plugins:
  - {name: jwt, config: {claims_to_verify: [exp]}}
  - {name: rate-limiting, config: {minute: 100000000, policy: local}}
  - name: request-transformer
    config:
      add: {headers: ["X-Request-ID:$(uuid)", "X-Forwarded-Service:things"]}
      remove: {headers: [X-Internal]}
consumers:
  - username: ada
    jwt_secrets: [{key: fleet, secret: SECRET}]
""".replace("SECRET", SECRET)


def setups(port: int) -> dict[str, Setup]:
    """Every Envoy that is measured, before a backend at this port."""
    plain = SERVICE.format(backend=port)
    sliding = plain + "plugins:\n  - {name: rate-limiting, config: {minute: 1, policy: local}}\n"
    return {
        "bare": bare(port),
        "plain": ours("ours, plain", plain),
        "counted": ours("ours, plain, with --admin", plain, counted=True),
        "full": ours("ours, JWT + limit + headers", plain + FULL),
        "sliding": sliding_window(sliding),
        "first": ours("first of 2,000", many(port), "/area0/route0000"),
        "last": ours("last of 2,000", many(port), "/area39/route1999"),
    }


def costs(rounds: int, seconds: float, place: Path) -> dict[str, Any]:
    """CPU for a request of everybody, in us, and the ratios."""
    token = jwt.encode({"alg": "HS256"}, {"iss": "fleet", "exp": 9999999999}, OctKey.import_key(SECRET))
    with backend(place) as port, ExitStack() as stack:
        envoys = setups(port)
        proxies = {name: stack.enter_context(running(setup)) for name, setup in envoys.items()}
        if shutil.which("caddy"):
            proxies["caddy"] = stack.enter_context(caddy(port, place))
        proxies["python"] = stack.enter_context(python_proxy(port, place))
        for turn in range(rounds + 1):
            for proxy in turned(list(proxies.values()), turn):
                load(proxy, seconds, token)
            say(f"round {turn} of {rounds}" if turn else "warm")
        for proxy in proxies.values():
            proxy.cost.pop(0)
            say(f"{proxy.name:32} {median(proxy.cost):7.1f} us")
        return ratios({name: proxy.cost for name, proxy in proxies.items()})


def turned(proxies: list[Proxy], turn: int) -> list[Proxy]:
    """Another one begins each round, and they go round both ways: it must not tell whose neighbour one is."""
    first = turn % len(proxies)
    order = proxies[first:] + proxies[:first]
    return order if turn % 2 else order[::-1]


def counts(place: Path) -> dict[str, Any]:
    """The same by what the processor was told to do for a request, outside the kernel; nobody else who works
    on this machine changes that."""
    token = jwt.encode({"alg": "HS256"}, {"iss": "fleet", "exp": 9999999999}, OctKey.import_key(SECRET))
    with backend(place) as port:
        found = instructions(setups(port), token, place)
    for name, count in found.items():
        say(f"{name:32} {count:9.0f} instructions")
    told = {
        f"{name}_instructions": value for name, value in ratios({n: [c] for n, c in found.items()}).items()
    }
    return {**told, "instructions": {name: round(count) for name, count in found.items()}}


RATIOS = {
    "plain_vs_envoy": ("plain", "bare"),
    "plain_with_admin_vs_envoy": ("counted", "bare"),
    "full_vs_envoy": ("full", "bare"),
    "sliding_vs_envoy": ("sliding", "bare"),
    "vs_caddy": ("plain", "caddy"),
    "vs_granian_aiohttp": ("plain", "python"),
    "full_vs_granian_aiohttp": ("full", "python"),
    "last_of_2000_vs_first": ("last", "first"),
}


def ratios(cost: dict[str, list[float]]) -> dict[str, float]:
    """Medians over rounds of what one costs against another in the same round."""
    return {
        name: round(median(a / b for a, b in zip(cost[one], cost[other], strict=True)), 3)
        for name, (one, other) in RATIOS.items()
        if one in cost and other in cost
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="the last line is JSON either way")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--herd", type=int, default=20_000)
    given = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        nginx = shutil.which("nginx") or Path("/usr/sbin/nginx").exists()
        if shutil.which("wrk") and nginx:
            result |= costs(given.rounds, given.seconds, Path(place))
            if shutil.which("valgrind"):
                result |= counts(Path(place))
        else:
            say("wrk or nginx is not installed: no CPU figures")
    result |= reloads()
    result |= publishing()
    result["herd"] = herd(given.herd)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
