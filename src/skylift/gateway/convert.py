"""From one dialect to another: what was written, and by name everything that is lost or only near.

A writer (`kong.write`, `traefik.write`) makes a table from the model and says what it has no words for. Then
the result is read again and compared with the original by representative requests: whatever still differs is
said too, so that no loss is silent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from skylift.core.errors import Rejected
from skylift.gateway.compare import Change, compare
from skylift.gateway.decision import World
from skylift.gateway.kong.write import write as write_kong
from skylift.gateway.loading import loads
from skylift.gateway.model import Dialect, Gateway
from skylift.gateway.read import read_documents
from skylift.gateway.traefik.write import write as write_traefik
from skylift.gateway.writing import Losses

_WRITERS = {Dialect.KONG: write_kong, Dialect.TRAEFIK: write_traefik}


@dataclass(frozen=True, slots=True)
class Converted:
    """`text`: the file, YAML. `lost`: what the dialect has no words for. `differs`: what requests meet
    otherwise, as far as representatives show it."""

    text: str
    lost: tuple[str, ...]
    differs: tuple[Change, ...]


class _Plain(yaml.SafeDumper):
    """Without anchors: people read it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def convert(gateway: Gateway, to: Dialect, world: World) -> Converted:
    """The same gateway in another dialect's words."""
    if to not in _WRITERS:
        known = " and ".join(_WRITERS)
        raise Rejected("invalid_value", f"to is {str(to)!r}: files are written for {known}")
    losses = Losses()
    table: Mapping[str, Any] = _WRITERS[to](gateway, losses)
    text = yaml.dump(dict(table), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110)
    again = read_documents(loads(text, f"{to}.yaml"))
    return Converted(text, losses.sentences, compare(gateway, again, world, deep=False).changes)
