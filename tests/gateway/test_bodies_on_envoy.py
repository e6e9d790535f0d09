"""Bodies on their way through a real Envoy: JSON turned into XML and back, fields of JSON edited."""

import json
from collections.abc import Iterator
from xml.sax.saxutils import unescape

import pytest

from gateway.backends import Echo, serving
from gateway.door import Door

CONVERTS = """
gateway: 1
services: {old: {targets: ['@old']}, new: {targets: ['@new']}}
routes:
  - {name: old, path: /old, to: old, policies: [{convert: {client: json, backend: xml, root: order}}]}
  - name: new
    path: /new
    to: new
    policies: [{convert: {client: xml, backend: json, root: reply, limit: 4096}}]
"""
EDITS = """
_format_version: "3.0"
services:
  - name: things
    url: http://@new
    routes: [{name: things, paths: [/], strip_path: false}]
    plugins:
      - name: request-transformer
        config:
          remove: {body: [secret]}
          rename: {body: ["old:new"]}
          replace: {body: ["there:changed", "absent:never"]}
          add: {body: ["fresh:1", "kept:never"]}
          append: {body: ["list:last"]}
      - name: response-transformer
        config:
          remove: {json: [inside]}
          add: {json: ["count:3"], json_types: [number]}
"""


@pytest.fixture(scope="module")
def old() -> Iterator[Echo]:
    with serving(Echo("old", kind="application/xml")) as echo:
        yield echo


@pytest.fixture(scope="module")
def new() -> Iterator[Echo]:
    with serving(Echo("new")) as echo:
        yield echo


@pytest.fixture
def converting(door: Door, old: Echo, new: Echo) -> Door:
    door.open(CONVERTS, {"old": old, "new": new})
    return door


def test_a_client_of_json_speaks_to_a_backend_of_xml(converting: Door, old: Echo) -> None:
    old.body = '<?xml version="1.0"?><reply id="7"><sum>12.50</sum><item>a &amp; b</item><item/></reply>'
    said = '{"item":[{"@sku":"x1","n":12345678901234567890},{"n":null}],"note":"a < b"}'
    answer = converting.ask("/old", "POST", said, content_type="application/json")
    asked = old.asked[-1]
    assert asked["headers"]["content-type"].startswith("application/xml")
    assert asked["body"] == (
        '<?xml version="1.0" encoding="UTF-8"?><order><item sku="x1"><n>12345678901234567890</n></item>'
        '<item><n nil="true"/></item><note>a &lt; b</note></order>'
    )
    assert asked["headers"]["content-length"] == str(len(asked["body"]))
    assert answer.headers["content-type"].startswith("application/json")
    assert json.loads(answer.body) == {"reply": {"@id": "7", "sum": "12.50", "item": ["a & b", ""]}}


def test_a_client_of_xml_speaks_to_a_backend_of_json(converting: Door, new: Echo) -> None:
    new.body = '{"ok":true,"list":[1,2]}'
    answer = converting.ask("/new", "POST", "<order><n>1</n></order>", content_type="text/xml; charset=utf-8")
    assert json.loads(new.asked[-1]["body"]) == {"order": {"n": "1"}}
    assert answer.headers["content-type"].startswith("application/xml")
    assert answer.body.endswith("<reply><ok>true</ok><list>1</list><list>2</list></reply>")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('<!DOCTYPE a [<!ENTITY b "bomb">]><a>&b;</a>', "document types are not allowed"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "document types are not allowed"),
        ("<a>&unknown;</a>", "the entity &unknown; is not allowed"),
        ("<a><b></a>", "closes nothing"),
        ("<a/><b/>", "a document has one root"),
        ("<a>" * 70 + "</a>" * 70, "deeper than 64"),
        ("no xml at all", "a document has one root"),
    ],
    ids=["entity", "external entity", "unknown entity", "crossed", "two roots", "deep", "text"],
)
def test_xml_with_entities_or_errors_is_400_and_reaches_no_backend(
    converting: Door, new: Echo, body: str, says: str
) -> None:
    new.asked.clear()
    answer = converting.ask("/new", "POST", body, content_type="application/xml")
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/xml"  # the client's own language
    assert says in unescape(answer.body)
    assert new.asked == []


def test_json_that_is_none_is_400(converting: Door, old: Echo) -> None:
    old.asked.clear()
    answer = converting.ask("/old", "POST", '{"a":', content_type="application/json")
    assert answer.status == 400
    assert "JSON body cannot be read" in json.loads(answer.body)["message"]
    assert old.asked == []


def test_what_is_neither_passes_as_it_is(converting: Door, old: Echo) -> None:
    old.body = "plain"
    converting.ask("/old", "POST", "{no json}", content_type="text/plain")
    assert old.asked[-1]["body"] == "{no json}"


def test_a_body_over_the_conversions_limit_is_413(converting: Door, new: Echo) -> None:
    new.asked.clear()
    answer = converting.ask("/new", "POST", f"<a>{'x' * 5000}</a>", content_type="application/xml")
    assert answer.status == 413
    assert new.asked == []


def test_kongs_five_verbs_change_the_fields_of_a_body(door: Door, new: Echo) -> None:
    door.open(EDITS, {"new": new}, "kong.yaml")
    new.body = '{"inside":"secret","kept":true}'
    said = {"secret": 1, "old": {"deep": [1, 2.5]}, "there": 1, "kept": None, "list": "first"}
    answer = door.ask("/x", "POST", json.dumps(said), content_type="application/json")
    assert json.loads(new.asked[-1]["body"]) == {
        "new": {"deep": [1, 2.5]},
        "there": "changed",
        "kept": None,
        "fresh": "1",
        "list": ["first", "last"],
    }
    assert json.loads(answer.body) == {"kept": True, "count": 3}


@pytest.mark.parametrize("body", ["not json", "[1]", '"text"'])
def test_a_body_that_is_no_object_passes_unchanged(door: Door, new: Echo, body: str) -> None:
    door.open(EDITS, {"new": new}, "kong.yaml")
    new.body = None
    door.ask("/x", "POST", body, content_type="application/json")
    assert new.asked[-1]["body"] == body
