"""The inventory: where the names in a configuration really are."""

from skylift.gateway.reading import Fields

INVENTORY = "inventory"


def read_inventory(at: Fields) -> dict[str, tuple[str, ...]]:
    """A name (`host`, `host:port`, `name.namespace`) -> its addresses (`host:port`, or `host`)."""
    inner = at.table(INVENTORY)
    if inner is None:
        return {}
    found = {}
    for name in inner.value:
        addresses = inner.texts(name, single=True)
        if not addresses:
            inner.wrong(name, None, "it must have at least one address")
        for number, address in enumerate(addresses):
            port = address.rpartition(":")[2] if ":" in address and not address.endswith("]") else "1"
            if not port.isdecimal() or not 0 < int(port) < 65536:
                inner.wrong(f"{name}[{number}]", address, "it must be a host or host:port")
        found[name] = addresses
    return found
