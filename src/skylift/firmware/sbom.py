"""What a release is made of: a CycloneDX bill of materials in JSON, looked at before it is kept.

What is checked here is what we rely on, what would mislead, and what the schema does not say: that it is
bounded, CycloneDX of a version we know, and that its components have a name, a type and references of their
own. The server holds it to the whole schema besides (`engine.bill`). The bytes are kept as they came; the
release keys sign their digest.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from skylift.core.errors import Rejected, invalid

MAX_BYTES = 16 << 20
MAX_COMPONENTS = 100_000
DEPTH = 64
VERSIONS = ("1.2", "1.3", "1.4", "1.5", "1.6", "1.7")
TYPES = frozenset(
    {"application", "framework", "library", "container", "platform", "operating-system", "device"}
    | {"device-driver", "firmware", "file", "machine-learning-model", "data", "cryptographic-asset"}
)
_SERIAL = re.compile("urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_OPENING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]|[\]}]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Bill:
    """What people see of one."""

    spec_version: str
    components: int
    subject: str  # of its metadata: name and version; empty where it says nothing

    def shown(self) -> dict[str, Any]:
        return {"spec_version": self.spec_version, "components": self.components, "subject": self.subject}


def check_sbom(body: bytes) -> Bill:
    """The bill in these bytes. Raises `Rejected` with the field that is wrong."""
    if len(body) > MAX_BYTES:
        raise wrong("body", f"{len(body)} bytes", f"at most {MAX_BYTES}")
    _check_depth(body)
    found = parsed(body)
    if not isinstance(found, dict) or found.get("bomFormat") != "CycloneDX":
        shown = found.get("bomFormat") if isinstance(found, dict) else type(found).__name__
        raise wrong("bomFormat", shown, "must be CycloneDX")
    version = found.get("specVersion")
    if version not in VERSIONS:
        raise wrong("specVersion", version, f"one of {', '.join(VERSIONS)}")
    number = found.get("version", 1)
    if type(number) is not int or number < 1:
        raise wrong("version", number, "a whole number from 1 on")
    serial = found.get("serialNumber")
    if serial is not None and not (isinstance(serial, str) and _SERIAL.fullmatch(serial)):
        raise wrong("serialNumber", serial, "urn:uuid: and a UUID")
    seen: set[str] = set()
    count = 0
    for field, component in _components("components", found.get("components", [])):
        _check(field, component, seen)
        count += 1
        if count > MAX_COMPONENTS:
            raise wrong("components", count, f"at most {MAX_COMPONENTS}")
    return Bill(version, count, _subject(found, seen))


def parsed(body: bytes) -> Any:
    """The JSON of a bill, which every reader reads alike. Raises `Rejected`."""
    try:
        found = json.loads(body.decode(), object_pairs_hook=_each_once, parse_constant=_no_number)
        json.dumps(
            found, ensure_ascii=False
        ).encode()  # half of a surrogate pair is nothing that can be shown
    except (ValueError, RecursionError) as e:
        raise wrong("body", body[:20], f"is not JSON in UTF-8 ({str(e)[:80]})") from e
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _check_depth(body: bytes) -> None:
    depth = 0
    for found in _OPENING.finditer(body):
        sign = found.group()[:1]
        depth += (sign in b"[{") - (sign in b"]}")
        if depth > DEPTH:
            raise wrong("body", f"{depth} levels", f"nested at most {DEPTH} deep")


def _components(field: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Each of them, and those inside them, with where it stands."""
    if not isinstance(value, list):
        raise wrong(field, type(value).__name__, "a list")
    for number, component in enumerate(value):
        where = f"{field}[{number}]"
        yield where, component
        if isinstance(component, dict) and "components" in component:
            yield from _components(f"{where}.components", component["components"])


def _check(field: str, component: Any, seen: set[str]) -> None:
    if not isinstance(component, dict):
        raise wrong(field, type(component).__name__, "an object")
    if not isinstance(component.get("type"), str) or component["type"] not in TYPES:
        raise wrong(f"{field}.type", component.get("type"), f"one of {', '.join(sorted(TYPES))}")
    if not isinstance(component.get("name"), str) or not component["name"]:
        raise wrong(f"{field}.name", component.get("name"), "is needed, as text")
    for name in ("version", "purl", "bom-ref"):
        if name in component and not isinstance(component[name], str):
            raise wrong(f"{field}.{name}", component[name], "is not text")
    if component.get("purl", "pkg:").startswith("pkg:") is False:
        raise wrong(f"{field}.purl", component["purl"], "begins with pkg:")
    reference = component.get("bom-ref")
    if reference is not None:
        if reference in seen:
            raise wrong(f"{field}.bom-ref", reference, "stands twice")
        seen.add(reference)


def _subject(found: dict[str, Any], seen: set[str]) -> str:
    about = found.get("metadata", {})
    if not isinstance(about, dict):
        raise wrong("metadata", type(about).__name__, "an object")
    subject = about.get("component")
    if subject is None:
        return ""
    _check("metadata.component", subject, seen)
    return f"{subject['name']} {subject.get('version', '')}".strip()[:200]


def wrong(field: str, value: object, rule: str) -> Rejected:
    return invalid(field, value, rule, code="bad_sbom")
