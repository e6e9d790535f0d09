"""Templates, static files, and how numbers and moments are written.

Everything is escaped unless a template was told otherwise by `draw`, whose output is ours. Styles and scripts
are files of their own under names that change with their contents: pages may forbid anything inline.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from skylift.api.dashboard import draw
from skylift.core.errors import Kind, Rejected

STATIC = Path(__file__).parent / "static"
MEDIA = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
THEMES = ("auto", "light", "dark")
PREFIX = "/ui"
FOR_EVER = "public, max-age=31536000, immutable"


@cache
def _static() -> Mapping[str, tuple[str, bytes]]:
    """File name -> (digest, bytes). A handful of small files, read once."""
    found = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in MEDIA}
    return {name: (hashlib.sha256(body).hexdigest()[:12], body) for name, body in found.items()}


def static_url(name: str) -> str:
    """Where a static file is served, under a name that changes with its bytes."""
    return f"{PREFIX}/static/{_static()[name][0]}/{name}"


def static_file(digest: str, name: str) -> Response:
    """The file; an old page that asks for older bytes gets today's, uncached."""
    if name not in _static():
        raise Rejected("not_found", f"there is no {name!r} here", kind=Kind.NOT_FOUND)
    now, body = _static()[name]
    headers = {"Cache-Control": FOR_EVER if digest == now else "no-cache"}
    return Response(body, media_type=MEDIA[Path(name).suffix], headers=headers)


# --- filters -----------------------------------------------------------------------------------------


def number(value: float | None) -> str:
    """12,345."""
    return "-" if value is None else f"{value:,.0f}"


def percent(value: float | None) -> str:
    """0.23 %, 4.5 %, 31 %: as many digits as say something."""
    if value is None:
        return "-"
    digits = 0 if value >= 10 or value == 0 else 1 if value >= 1 else 2
    return f"{value:.{digits}f} %"


def size(value: float | None) -> str:
    """Bytes, as people read them."""
    if value is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("GB returns")


def lasting(seconds: float | None) -> str:
    """40 s, 12 min, 3.5 h, 2 days."""
    if seconds is None:
        return "-"
    for limit, unit, each in ((90, "s", 1), (90 * 60, "min", 60), (36 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / each:.3g} {unit}" if unit == "h" else f"{seconds / each:.0f} {unit}"
    return f"{seconds / 86400:.3g} days"


def moment(at: datetime | str | None) -> Markup:
    """A moment as `<time>`; the page's script says how long ago that is."""
    if at is None or at == "":
        return Markup("-")
    when = datetime.fromisoformat(at) if isinstance(at, str) else at
    exact = when.isoformat(timespec="seconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}">{}</time>').format(exact, f"{when:%d %b %Y, %H:%M:%S} UTC")


def words(state: str) -> str:
    """rolled_back -> rolled back."""
    return state.replace("_", " ")


def plain(value: Any) -> str:
    """A value of the audit trail; escaped like any other text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def short(text: str | None, length: int = 12) -> str:
    return "-" if not text else text if len(text) <= length else text[:length] + "…"


# --- pages -------------------------------------------------------------------------------------------


@cache
def environment() -> Environment:
    made = Environment(
        loader=PackageLoader("skylift.api.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "number": number,
        "percent": percent,
        "size": size,
        "lasting": lasting,
        "moment": moment,
        "words": words,
        "plain": plain,
        "short": short,
    }
    made.globals |= {"static": static_url, "draw": draw, "timedelta": timedelta, "ui": PREFIX}
    return made


def text(template: str, /, **values: Any) -> str:
    return environment().get_template(template).render(**values)


def html(template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
    """A page; kept by nobody: it is what one person may see now."""
    return HTMLResponse(text(template, **values), status_code=status, headers={"Cache-Control": "no-store"})
