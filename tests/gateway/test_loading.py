"""Files that must never be built: bombs, cycles, depth, size; and values as they are written."""

import json
from pathlib import Path

import pytest

from skylift.gateway.errors import Refused
from skylift.gateway.loading import MAX_BYTES, load, loads

BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
)


@pytest.mark.parametrize(
    ("name", "text", "code", "says"),
    [
        ("bomb.yaml", BOMB, "yaml_bomb", "bomb.yaml:7: unfolded, its aliases make more than 1000000 values"),
        ("cycle.yaml", "a: &a\n  b: *a\n", "cyclic_reference", "an anchor contains itself"),
        ("deep.yaml", "[" * 5000, "too_deep", "nested at most 64 deep"),
        ("deep.json", "[" * 100_000, "too_deep", "nested at most 64 deep"),
        ("deep.json", "[" * 100 + "]" * 100, "too_deep", "nested at most 64 deep"),
        ("deep.toml", "a = " + "[" * 5000, "too_deep", "nested at most 64 deep"),
        ("aliases.yaml", "a: &a 1\nb: [" + "*a, " * 1001 + "]", "too_many_aliases", "at most 1000 aliases"),
        ("object.yaml", "a: !!python/object/apply:os.system [id]", "unreadable_file", "is not read here"),
        ("binary.yaml", "a: !!binary aGk=", "unreadable_file", "is not read here"),
        ("twice.yaml", "a: 1\nb: 2\na: 3\n", "duplicate_key", "twice.yaml:3: a stands here a second time"),
        ("twice.json", '{"a": 1, "a": 2}', "duplicate_key", "a stands in one table twice"),
        ("twice.toml", "a = 1\na = 2", "unreadable_file", "not TOML"),
        ("not.yaml", "a: [1,\nb: }", "unreadable_file", "not.yaml:2: not YAML"),
        ("not.json", "{", "unreadable_file", "not JSON"),
        ("key.yaml", "[a]: 1", "unreadable_file", "a key is a word"),
        ("number.yaml", f"a: {'9' * 40}", "unreadable_file", "is no int"),
        ("big.yaml", "a: " + "x" * MAX_BYTES, "unreadable_file", "at most 8 MiB"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_a_file_that_must_not_be_built_is_refused(name: str, text: str, code: str, says: str) -> None:
    with pytest.raises(Refused) as refused:
        loads(text, name)
    assert refused.value.code == code
    assert says in str(refused.value)


def test_a_file_of_another_encoding_or_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    (tmp_path / "big.yaml").write_bytes(b" " * (MAX_BYTES + 1))
    for name, says in (("latin.yaml", "UTF-8"), ("big.yaml", "8 MiB")):
        with pytest.raises(Refused, match=says):
            load([tmp_path / name])


def test_values_are_what_yaml_says() -> None:
    text = 'a: 010\nb: 0x10\nc: -1_000\nd: 1.5e+3\ne: yes\nf: ~\ng: "1"\nh: 2026-11-28\ni: .inf\nj: ""\n'
    (document,) = loads(text)
    found = document.value
    assert [found[key] for key in "abcdefgh"] == [8, 16, -1000, 1500.0, True, None, "1", "2026-11-28"]
    assert found["i"] == float("inf")
    assert found["j"] == ""


def test_anchors_and_merges_unfold() -> None:
    (document,) = loads("base: &base {a: 1, b: 2}\nmade: {<<: *base, b: 3}\nlist: [*base, *base]\n")
    assert document.value["made"] == {"a": 1, "b": 3}
    assert document.value["list"] == [{"a": 1, "b": 2}] * 2


def test_several_documents_and_their_lines() -> None:
    first, second = loads("a: 1\n---\nb:\n  - c: 2\n  - d: 3\n")
    assert first.value == {"a": 1}
    assert second.lines["b[1].d"] == 5


def test_json_and_toml_are_the_same_values() -> None:
    value = {"a": {"b": [1, 2.5, "x", True]}}
    (from_json,) = loads(json.dumps(value), "x.json")
    (from_toml,) = loads('[a]\nb = [1, 2.5, "x", true]', "x.toml")
    assert from_json.value == from_toml.value == value


def test_values_come_from_the_environment_of_files(tmp_path: Path) -> None:
    file = tmp_path / "kong.yaml"
    file.write_text(
        'secret: ${{ env "DECK_SECRET" }}\nport: ${{ env "DECK_PORT" | toInt }}\n'
        'url: "http://{{ env "HOST" }}:8080"\nrule: Host(`a.{{env `HOST`}}`)\nkept: "{{ .Name }}"\n'
    )
    environ = {"DECK_SECRET": "s: #1", "DECK_PORT": "8443", "HOST": "b.test"}
    with pytest.raises(Refused):
        load([file], environ)  # what YAML would read as more than a value is found by YAML
    (found,) = load([file], {**environ, "DECK_SECRET": "s1"})
    assert found.value == {
        "secret": "s1",
        "port": 8443,
        "url": "http://b.test:8080",
        "rule": "Host(`a.b.test`)",
        "kept": "{{ .Name }}",
    }
    assert found.filled == 4


@pytest.mark.parametrize(
    ("environ", "says"),
    [({}, "kong.yaml:2: the environment has no KEY"), ({"KEY": 'a"b'}, "KEY must have no quotes")],
)
def test_a_variable_that_is_not_there_is_never_an_empty_secret(
    tmp_path: Path, environ: dict[str, str], says: str
) -> None:
    file = tmp_path / "kong.yaml"
    file.write_text('services: []\nsecret: ${{ env "KEY" }}\n')
    with pytest.raises(Refused) as refused:
        load([file], environ)
    assert says in str(refused.value.problems[0])


def test_a_document_of_a_url_does_not_see_the_environment() -> None:
    with pytest.raises(Refused, match="only files"):
        loads('secret: ${{ env "PATH" }}', "kong.yaml")
