"""What a release takes from its images: the chip they are for, the device type, the version, the security
version. An image says these of itself (`firmware.image`); where what is known says otherwise, the upload is
refused, for one of them is wrong."""

from typing import Any

from skylift.core.errors import Kind, Rejected, invalid
from skylift.store import releases
from skylift.store.db import Connection

MOST_SECURITY_VERSION = (1 << 31) - 1
CHIP_FORMATS = {"esp": "an ESP32", "mcuboot": "MCUboot", "uf2": "UF2"}


def made_for(facts: dict[str, Any]) -> str | None:
    """The chip of an image; where it says none, the boot loader that takes it; None: it says neither."""
    chip = facts.get("chip")
    return str(chip) if chip else CHIP_FORMATS.get(str(facts.get("format")))


def check_chip(before: dict[str, Any] | None, facts: dict[str, Any], device_type: str) -> None:
    """A device type is made of one chip: what its last release was for is what the next one is for."""
    had, has = made_for(before or {}), made_for(facts)
    if had is None or had == has:
        return
    raise Rejected(
        "wrong_chip",
        f"body is {f'an image for {has}' if has else 'no image of a chip'}: {device_type} had one for {had} "
        "until now",
        kind=Kind.CONFLICT,
        field="body",
        value=str(has),
        rule=f"for {had}, or other_chip=true where the hardware did change",
    )


def device_type_of(conn: Connection, product: str, facts: dict[str, Any]) -> str:
    """The one device type of this product whose images are for this chip, and of this project."""
    has = made_for(facts)
    known = {
        name: releases.last_facts(conn, product, name) or {} for name in releases.types_of(conn, product)
    }
    fits = [name for name, before in known.items() if has and made_for(before) == has]
    project = facts.get("project")
    if len(fits) > 1 and project:
        fits = [name for name in fits if known[name].get("project") == project]
    if len(fits) == 1:
        return fits[0]
    if has is None:
        why = "the image does not say for which chip it is"
    elif fits:
        why = f"{', '.join(sorted(fits))} are all of {has}"
    else:
        why = f"no release of {product} had an image for {has} before"
    raise invalid("device_type", "", f"is needed: {why}", code="device_type_needed")


def version_of(facts: dict[str, Any]) -> str:
    """The version that the image says it is."""
    if not facts.get("version"):
        raise invalid("version", "", "is needed: the image does not say it", code="version_needed")
    return str(facts["version"])


def security_version(has: int, facts: dict[str, Any]) -> int:
    """Of a release that `has` so much, with this image: one of 0 takes its image's number. One that says less
    than its image would be refused by every device that ever ran that image."""
    said: int = facts.get("security_version", 0)
    if said <= has:
        return has
    if said > MOST_SECURITY_VERSION:
        raise invalid("body", said, f"an image's security version is at most {MOST_SECURITY_VERSION}")
    if has:
        raise Rejected(
            "wrong_security_version",
            f"body is an image of security_version {said}: the release says {has}",
            kind=Kind.CONFLICT,
            field="body",
            value=said,
            rule=f"at most {has}, or a release of {said}",
        )
    return said
