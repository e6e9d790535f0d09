"""A bill of materials, held to CycloneDX's own schema of the version that it says it is of.

`firmware.sbom` has looked at it before: it is bounded, and says what people are shown. The schemas are those
that the CycloneDX project's Python library brings; a validator in Rust holds 16 MB to them in half a second.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from skylift.firmware.sbom import Bill, check_sbom, parsed, wrong

RULE_LENGTH = 200  # characters of the schema's own words


def check_bill(body: bytes) -> Bill:
    """The bill in these bytes. Raises `Rejected` with the field that is not as it should be."""
    bill = check_sbom(body)
    error = next(iter(_validator(bill.spec_version).iter_errors(parsed(body))), None)
    if error is not None:
        field = [*error.instance_path, *_missed(error.kind)]
        raise wrong(_shown(field), _value(error.instance), error.message[:RULE_LENGTH])
    return bill


def _missed(kind: Any) -> Sequence[str]:
    """The name that is there and should not be, or should be and is not, as the last part of the field."""
    unexpected: Sequence[str] = getattr(kind, "unexpected", ())
    missing = getattr(kind, "property", None)
    return [missing] if isinstance(missing, str) else unexpected[:1]


def _shown(path: Sequence[str | int]) -> str:
    """components[3].hashes[0].alg"""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "body"


def _value(instance: object) -> object:
    return type(instance).__name__ if isinstance(instance, Mapping | list) else instance


@cache
def _validator(version: str) -> Any:
    """Of one version's schema, the strict one where there are two. Loaded with the first bill."""
    import jsonschema_rs
    from cyclonedx.schema import SchemaVersion, _res

    found = _res.BOM_JSON_STRICT[SchemaVersion.from_version(version)]
    beside = (_res.SPDX_JSON, _res.JSF, _res.CRYPTOGRAPHY_DEFS)
    named = [(f"http://cyclonedx.org/schema/{Path(path).name}", _read(path)) for path in beside]
    if found is None:
        raise AssertionError(f"{version} has no schema in JSON")
    registry = jsonschema_rs.Registry(named)
    return jsonschema_rs.Draft7Validator(_read(found), registry=registry, validate_formats=True)


def _read(path: str) -> Any:
    return json.loads(Path(path).read_bytes())
