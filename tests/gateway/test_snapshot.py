"""The files that Envoy reads."""

import json

from skylift.gateway.envoy.snapshot import Json, discovery


def routes(count: int) -> list[Json]:
    return [{"name": f"r{n}", "match": {"prefix": f"/{n}"}, "route": {"cluster": "c"}} for n in range(count)]


def test_a_files_version_is_its_contents_whatever_the_order_of_the_words() -> None:
    listed = routes(3)
    turned = [dict(reversed(route.items())) for route in listed]
    assert discovery(listed) == discovery(turned)
    assert discovery(listed).version != discovery(routes(2)).version
    read = json.loads(discovery(listed).body)
    assert read == {"version_info": discovery(listed).version, "resources": listed}


def test_a_file_of_many_routes_is_one_line() -> None:
    """Indented, Python writes it without its encoder in C: five times the time, twice the bytes."""
    assert discovery(routes(100)).body.count(b"\n") == 1
