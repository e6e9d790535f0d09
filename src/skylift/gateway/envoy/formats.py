"""Templates and answers in Envoy's formats."""

from collections.abc import Callable, Mapping
from ipaddress import ip_network

from skylift.gateway.envoy.snapshot import Json
from skylift.gateway.errors import Problem, Refused
from skylift.gateway.policies import Answer
from skylift.gateway.template import Source, Template, Var

OVERWRITE, IF_ABSENT, IF_THERE, APPEND = (
    "OVERWRITE_IF_EXISTS_OR_ADD",
    "ADD_IF_ABSENT",
    "OVERWRITE_IF_EXISTS",
    "APPEND_IF_EXISTS_OR_ADD",
)
CONSUMER = "x-consumer-username"
CAPTURES = "skylift.captures"  # groups of the route's path, in the request's metadata

_SOURCES: Mapping[Source, Callable[[str], str]] = {
    Source.HEADER: lambda name: f"%REQ({name.replace('_', '-')})%",
    Source.QUERY: lambda name: f"%QUERY_PARAM({name})%",
    Source.CAPTURE: lambda name: f"%DYNAMIC_METADATA({CAPTURES}:{name})%",
    Source.UUID: lambda _: "%UNIQUE_ID%",
    Source.REQUEST_ID: lambda _: "%REQ(x-request-id)%",
    Source.CLAIM: lambda name: f"%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload:{name})%",
    Source.CONSUMER: lambda _: f"%REQ({CONSUMER})%",
    Source.CLIENT: lambda _: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    Source.PATH: lambda _: "%PATH(NQ)%",
    Source.HOST: lambda _: "%REQ(:authority)%",
}


def envoys(template: Template) -> str:
    """The template as Envoy fills it. Raises Refused for a hole that Envoy cannot fill."""
    return "".join(part.replace("%", "%%") if isinstance(part, str) else _hole(part) for part in template)


def _hole(var: Var) -> str:
    known = _SOURCES.get(var.source)
    if known is None:
        raise Refused([Problem("", "template", "Envoy has no word for this", str(var))])
    return known(var.name)


def staged(template: Template) -> tuple[list[Json], str, tuple[str, ...]]:
    """The same for a template whose holes have a text for where there is nothing: mutations that put it into
    headers of ours, the format that reads them, and their names."""
    prelude: list[Json] = []
    names: list[str] = []
    text = ""
    for part in template:
        if isinstance(part, str) or not part.default:
            text += envoys((part,))
            continue
        name = f"x-sl-or-{len(names)}"
        prelude += [
            {"remove": name},
            {"append": header(name, _hole(part), IF_ABSENT)},
            {"append": header(name, part.default.replace("%", "%%"), IF_ABSENT)},
        ]
        names.append(name)
        text += f"%REQ({name})%"
    return prelude, text, tuple(names)


def header(name: str, value: str, action: str = OVERWRITE) -> Json:
    """A header to be set. An empty value sends nothing."""
    return {"header": {"key": name.lower(), "value": value}, "append_action": action}


def addresses(network: str) -> Json:
    """An address, or a CIDR range."""
    found = ip_network(network, strict=False)
    return {"address_prefix": str(found.network_address), "prefix_len": found.prefixlen}


def direct(answer: Answer) -> Json:
    """A route's words for answering by itself."""
    text = envoys(answer.body)
    body = {"body_format": _format(text, answer.content_type)} if text else {}
    return {
        "direct_response": {
            "status": answer.status,
            **({"body": {"inline_string": "-"}} if text else {}),
            **body,
        },
        "response_headers_to_add": [header(name, envoys(value)) for name, value in answer.headers],
    }


def _format(text: str, content_type: str) -> Json:
    return {"text_format_source": {"inline_string": text}, "content_type": content_type}


def mapper(answer: Answer, when: Json) -> Json:
    """What the listener says instead of Envoy's own words, where `when` holds."""
    return {
        "filter": when,
        "status_code": answer.status,
        "body_format_override": _format(envoys(answer.body), answer.content_type),
        "headers_to_add": [header(name, envoys(value)) for name, value in answer.headers],
    }
