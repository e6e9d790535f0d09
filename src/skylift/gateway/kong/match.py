"""Kong's routes: which requests one means, and its place in the order (`traditional_compatible`).

A route with several paths is one route per path: Kong splits by prefix length and puts all regexes together;
paths of one length have one key and stay in the order of the file, so splitting further changes nothing.
"""

import re

from skylift.gateway.conditions import All, AnyOf, Condition, Part, Test
from skylift.gateway.reading import Fields
from skylift.gateway.request import normal_path
from skylift.gateway.text import Kind, Text

METHOD = re.compile(r"[A-Z]+")


_PLAIN = re.compile(r"[a-zA-Z0-9.\-_~/%]*")


def paths(at: Fields, *, unmarked: bool = False) -> tuple[Text, ...]:
    """`paths`: a plain one is a prefix of raw characters, one that begins with ~ a regex anchored at the
    start only. `unmarked`: as before format 3.0, a path with other characters than a plain one has is a regex
    too."""
    found = []
    for number, value in enumerate(at.texts("paths")):
        name = f"paths[{number}]"
        if unmarked and not _PLAIN.fullmatch(value):
            at.note("unmarked_regex", f"{value} is read as a regex, as formats before 3.0 have it", name)
            value = "~" + value.removeprefix("~")
        if value.startswith("~"):
            if not value.startswith("~/"):
                at.wrong(name, value, "a regex path begins with ~/")
            elif at.regex(name, value[1:]):
                found.append(Text(Kind.REGEX_START, value[1:]))
        elif not value.startswith("/"):
            at.wrong(name, value, "a path begins with / (a regex with ~/)")
        elif normal_path(value) != value:
            at.wrong(name, value, f"a plain path must be written as it is compared: {normal_path(value)}")
        else:
            found.append(Text(Kind.PREFIX, value))
    return tuple(found)


def hosts(at: Fields) -> tuple[tuple[Text, str], ...]:
    """`hosts`: (comparison, port or empty). One * at the left or the right end."""
    found = []
    for number, value in enumerate(at.texts("hosts")):
        host, _, port = value.lower().partition(":")
        wrong = port and not port.isdecimal()
        if host.startswith("*.") and "*" not in host[1:]:
            text = Text(Kind.SUFFIX, host[1:])
        elif host.endswith(".*") and "*" not in host[:-1]:
            text = Text(Kind.PREFIX, host[:-1])
        elif "*" in host or not host:
            wrong = True
        else:
            text = Text(Kind.EXACT, host)
        if wrong:
            rule = "a host is a name, *.name or name.*, with or without a port"
            at.wrong(f"hosts[{number}]", value, rule)
        else:
            found.append((text, port))
    return tuple(found)


def headers(at: Fields) -> tuple[Test, ...]:
    """`headers`: name -> values. Compared without case; a single value that begins with ~* is a regex."""
    inner = at.table("headers")
    if inner is None:
        return ()
    found = []
    for name in inner.value:
        values = inner.texts(name)
        if name.lower() == "host":
            inner.wrong(name, None, "a host is matched by hosts, not by headers")
        elif not values:
            inner.wrong(name, None, "it must be a list of values, not an empty one")
        elif len(values) == 1 and values[0].startswith("~*"):
            if inner.regex(f"{name}[0]", values[0][2:]):
                found.append(Test(Part.HEADER, (Text(Kind.REGEX_SEARCH, values[0][2:], True),), name))
        else:
            texts = tuple(Text(Kind.EXACT, value, ignore_case=True) for value in values)
            found.append(Test(Part.HEADER, texts, name))
    return tuple(found)


def host_condition(found: tuple[tuple[Text, str], ...]) -> Condition | None:
    """Any of the hosts, each with its port where one is written."""
    if not found:
        return None
    if not any(port for _, port in found):
        return Test(Part.HOST, tuple(text for text, _ in found))
    each: list[Condition] = []
    for text, port in found:
        host = Test(Part.HOST, (text,))
        each.append(All((host, Test(Part.PORT, (Text(Kind.EXACT, port),)))) if port else host)
    return AnyOf(tuple(each)) if len(each) > 1 else each[0]


def rank(
    kinds: int, found_hosts: tuple[tuple[Text, str], ...], header_count: int, path: Text | None, priority: int
) -> tuple[int, ...]:
    """Kong's key, most telling part first: how many kinds of attribute, whether hosts are all plain, how many
    headers, regex before prefix, the regex's priority, the prefix's length."""
    plain_hosts = bool(found_hosts) and all(text.kind is Kind.EXACT for text, _ in found_hosts)
    regex = path is not None and path.kind is Kind.REGEX_START
    length = len(path.value) if path is not None and not regex else 0
    return (kinds, int(plain_hosts), min(header_count, 255), int(regex), priority if regex else 0, length)
