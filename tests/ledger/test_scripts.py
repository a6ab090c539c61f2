"""The Lua scripts: their signatures, the loader, and the check that `make lint` runs."""

import ast

import pytest

from batchord.ledger.core.scripts import (
    BadSignature,
    Script,
    is_library,
    script_files,
    script_source,
)
from batchord.ledger.core.scripts import script as script_of
from tests.support.lua_lint import faults_of_call, faults_of_script

HEAD = "-- x(KEYS meta, [other]; ARGV shard, (index, token)...) -> 1\n"
BODY = "for index, token in records() do redis.call('HSET', META, index, token) end\n"
USED = "return {OTHER, shard}\n"


def test_values_come_into_the_order_of_the_signature() -> None:
    script = Script("x", HEAD + BODY + USED)
    keys = {"meta": "M", "other": "O"}
    call = script.call(keys.get, {"shard": 3}, records=[(1, "a"), (2, "b")])
    assert call == ("x", ["M", "O"], [3, 1, "a", 2, "b"])
    assert script.call({"meta": "M"}.get, {"shard": 3}).keys == ["M"]
    assert "local META, OTHER = KEYS[1], KEYS[2] local shard = ARGV[1] " in script.text
    assert "local RECORDS_AT, records = 2, each(2, 2)\n" in script.text


@pytest.mark.parametrize(
    ("keys", "args", "records", "told"),
    [
        ({}, {"shard": 1}, (), "x.lua needs meta"),
        ({"meta": "M"}, {}, (), "x.lua needs shard"),
        ({"meta": "M"}, {"shard": 1, "shards": 1}, (), "x.lua has no argument shards"),
        ({"meta": "M"}, {"shard": 1}, [(1,)], "x.lua takes its repeated arguments 2 at a time"),
    ],
)
def test_a_call_that_does_not_fit_is_refused(
    keys: dict[str, str], args: dict[str, int], records: list[tuple[int]], told: str
) -> None:
    with pytest.raises(BadSignature, match=told):
        Script("x", HEAD).call(keys.get, args, records=records)


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ("local x = 1", "x.lua does not begin with its signature"),
        ("-- y(KEYS meta) -> 1", "x.lua does not begin with its signature"),
        ("-- x(KEYS meta, other-key) -> 1", "not a parameter: 'other-key'"),
        ("-- x(KEYS [a], b) -> 1", "'b' stands behind what may be left out"),
        ("-- x(KEYS a..., b) -> 1", "'b' stands behind what may be left out"),
    ],
)
def test_a_bad_signature_is_refused(head: str, told: str) -> None:
    with pytest.raises(BadSignature, match=told):
        Script("x", head)


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        (BODY + USED, []),
        (BODY + "local unused = 1\n" + USED, ["3: unused is never used"]),
        (BODY + "local f = 1\nf = 2\n" + USED, ["3: f is never used"]),
        (BODY + "return {OTHER, shard, sharp}\n", ["3: sharp is not declared"]),
        (BODY + "return OTHER\n", ["1: shard of the signature is never used"]),
        (USED, ["1: META of the signature is never used", "RECORDS_AT or records of the"]),
        (BODY + "return {OTHER, shard, KEYS[2]}\n", ["3: KEYS by its position: name it"]),
        (BODY + "if shard then\n" + USED, ["0: a block has no end"]),
        (BODY + "for i = 1, 2 do local a = i end\n" + USED, ["3: a is never used"]),
        (BODY + "for _ = 1, 2 do redis.call(shard) end return OTHER\n", []),
        (BODY + "local function f(a, b) return a end\nreturn f(OTHER, shard)", ["3: b is never"]),
        (BODY + "local t = {shard = 1, OTHER} return {t.some, shard}\n", []),
        ("-- uses: window\n" + BODY + USED, ["1: nothing of window is used"]),
        (BODY + "if shard then local a = 1 else return a end\n" + USED, ["a is never", "a is not"]),
        (BODY + "while shard do break end repeat redis.call(OTHER) until shard\n", []),
    ],
)
def test_the_check_finds(body: str, faults: list[str]) -> None:
    found = list(faults_of_script("x", HEAD + body))
    assert len(found) == len(faults)
    assert all(told in fault for told, fault in zip(faults, found, strict=True)), found


@pytest.mark.parametrize(
    ("call", "faults"),
    [
        ("store.transition('gather', batch_id, shard=1)", []),
        ("store.transition('gather', batch_id)", ["gather.lua needs shard"]),
        ("store.transition('gather', batch_id, **given)", []),
        ("store.transition('gather', shard=1, sharp=2)", ["gather.lua has no argument sharp"]),
        ("store.transition('gathers', shard=1)", ["there is no script 'gathers'"]),
        ("store.transition('ending')", ["there is no script 'ending'"]),
        ("store.call('beat', batch_id)", ["beat.lua needs records"]),
        ("store.call('gather', shard=1, records=[])", ["gather.lua takes no records"]),
        ("store.transition('purge', batch_id)", ["purge.lua needs more_keys"]),
        ("other.call('GET', 1)", ["there is no script 'GET'"]),
        ("store.run('GET', 1)", []),
    ],
)
def test_the_check_compares_calls_with_signatures(call: str, faults: list[str]) -> None:
    node = ast.parse(call).body[0]
    assert isinstance(node, ast.Expr)
    assert isinstance(node.value, ast.Call)
    assert list(faults_of_call(node.value)) == faults


def test_every_script_is_loaded_without_functions_that_it_does_not_call() -> None:
    for name in script_files():
        if is_library(script_source(name)):
            continue
        text = script_of(name).text
        for line in text.splitlines():
            if line.startswith("local function "):
                function = line.removeprefix("local function ").partition("(")[0]
                assert text.count(function) > 1, (name, function)
