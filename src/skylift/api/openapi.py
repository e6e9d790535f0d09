"""What the OpenAPI document needs beyond what FastAPI reads off the routes.

The routes that live in the event loop, by hand; the problem documents of every operation; the bearer token.
"""

from typing import Any

from skylift.engine.publish import KINDS, MAX_NOTES

_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "field": {"type": "string"},
        "rule": {"type": "string"},
    },
}
_PROBLEM_CODES = ("400", "401", "403", "404", "405", "409", "413", "416", "422", "503")
_NAME = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}
_VERSION = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$"}
_NONCE = {"type": "string", "pattern": "^[0-9a-f]{16,64}$"}
_DIGEST = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_FILE = {"type": "string", "minLength": 1, "maxLength": 100}
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_BYTES_GIVEN = {
    "type": "string",
    "pattern": "^[0-9]{1,15}$",
    "description": "bytes of memory that the device gives for a delta, or to unpack; goes with `codecs`",
}
_CODECS = {
    "type": "string",
    "pattern": "^([a-z0-9]{1,8}(,[a-z0-9]{1,8}){0,6})?$",
    "description": "what the device unpacks: `xz`, `zstd`; goes with `memory`",
}
_DELTA = {
    "type": "object",
    "required": ["url", "sha256", "size", "base_sha256"],
    "properties": {
        "url": {"type": "string"},
        "sha256": _DIGEST,
        "size": {"type": "integer"},
        "base_sha256": _DIGEST,
        "memory": {"type": "integer", "description": "bytes that applying it takes at most"},
        "scratch": {"type": "integer", "description": "bytes of disk that it takes besides"},
        "needs": {
            "type": "array",
            "items": {"type": "string"},
            "description": "codecs that the device must have, by name, parameters and version",
        },
    },
}
_CHAIN = {
    "type": "array",
    "items": _DELTA,
    "description": "deltas to be applied one behind the other: each starts from what the one before made",
}
_PACKED = {
    "type": "object",
    "required": ["codec", "url", "sha256", "size"],
    "description": "the full image, compressed: frames that each stand for themselves",
    "properties": {
        "codec": {"type": "string", "enum": ["xz", "zstd"]},
        "url": {"type": "string"},
        "sha256": _DIGEST,
        "size": {"type": "integer"},
        "memory": {"type": "integer", "description": "bytes that unpacking it takes at most"},
    },
}
_CHECK = {
    "type": "object",
    "required": ["update_available", "retry_after"],
    "properties": {
        "update_available": {"type": "boolean"},
        "retry_after": {"type": "integer"},
        "report_health": {"type": "boolean", "description": "a word of health is worth a request now"},
        "version": {"type": "string"},
        "url": {"type": "string"},
        "sha256": _DIGEST,
        "size": {"type": "integer"},
        "mandatory": {"type": "boolean"},
        "kind": {"type": "string", "enum": ["image", "config"]},
        "deployment": {"type": "string"},
        "attempt": {"type": "integer"},
        "delta": _DELTA,
        "chain": _CHAIN,
        "packed": _PACKED,
        "trust": {"type": "object"},
    },
}


def _query(name: str, schema: dict[str, Any], required: bool = True) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "schema": schema}


def _path(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _get(
    summary: str, parameters: list[dict[str, Any]], content: dict[str, Any], tag: str, **more: Any
) -> dict[str, Any]:
    answers = {"200": {"description": "OK", "content": content}, **more.pop("answers", {})}
    return {
        "get": {"summary": summary, "tags": [tag], "parameters": parameters, "responses": answers, **more}
    }


def by_hand() -> dict[str, Any]:
    """The paths FastAPI does not see."""
    json_of = {"application/json": {"schema": {"type": "object"}}}
    asked = [
        _query("device_id", _NAME),
        _query("current_version", _VERSION),
        _query("device_type", _NAME),
        _query("config_version", _VERSION, required=False),
        _query("image_sha256", _DIGEST, required=False),
        _query("nonce", _NONCE, required=False),
        _query("memory", _BYTES_GIVEN, required=False),
        _query("codecs", _CODECS, required=False),
    ]
    public: dict[str, Any] = {"security": []}
    upload = {
        "post": {
            "summary": "Upload an image of a draft release; or of a product: the release is made with it, or "
            "not at all, as `version` and the others say, else as the image does. `seal`: it was the last",
            "tags": ["releases and trust"],
            "parameters": [
                _query("release", {"type": "string", "pattern": "^rel_[0-9a-z]{1,40}$"}, required=False),
                _query("product", _NAME, required=False),
                _query("version", _VERSION, required=False),
                _query("kind", {"type": "string", "enum": list(KINDS)}, required=False),
                _query("notes", {"type": "string", "maxLength": MAX_NOTES}, required=False),
                _query("security_version", {"type": "integer", "minimum": 0}, required=False),
                _query("device_type", _NAME, required=False),
                _query("sha256", _DIGEST, required=False),
                _query("other_chip", {"type": "boolean"}, required=False),
                _query("seal", {"type": "boolean"}, required=False),
            ],
            "requestBody": {"required": True, "content": _BYTES},
            "responses": {"201": {"description": "Stored", "content": json_of}},
        }
    }
    side = "devices' side"
    return {
        "/api/updates/check": _get(
            "Is there an update for me?", asked, {"application/json": {"schema": _CHECK}}, side
        ),
        "/api/blobs/{sha256}": _get(
            "Download",
            [_path("sha256", _DIGEST)],
            _BYTES,
            side,
            answers={
                "206": {"description": "A part", "content": _BYTES},
                "304": {"description": "Unchanged"},
                "307": {"description": "An object store has it: there, without the token"},
            },
        ),
        "/image/{filename}": _get(
            "A signed file of the image repository", [_path("filename", _FILE)], json_of, side, **public
        ),
        "/director/{device_id}/{filename}": _get(
            "A signed file of one device's orders",
            [_path("device_id", _NAME), _path("filename", _FILE), _query("nonce", _NONCE, required=False)],
            json_of,
            side,
        ),
        "/healthz": _get("The process lives", [], json_of, "health", **public),
        "/readyz": _get("The database answers", [], json_of, "health", **public),
        "/metrics": _get("Prometheus", [], {"text/plain": {"schema": {"type": "string"}}}, "health"),
    } | {"/api/artifacts": upload}


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Problems and the token for every operation."""
    components = document.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = _PROBLEM
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path in document["paths"].values():
        for operation in path.values():
            operation.setdefault("security", [{"token": []}])
            for code in _PROBLEM_CODES:
                operation["responses"][code] = {"description": "A problem", "content": content}
    return document
