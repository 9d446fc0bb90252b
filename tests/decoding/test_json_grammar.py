from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from gemma_mlx import Gemma
from gemma_mlx.decoding.json_grammar import LONGEST_ENDING_TOKENS
from gemma_mlx.errors import UsageError

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "ages": {"type": "array", "items": {"type": "integer"}}},
    "required": ["name", "ages"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "string", "fooBar": 1}, "'fooBar' at #"),
        ({"type": "object", "properties": {"a": {"contentEncoding": "base64"}}}, "'contentEncoding' at #/properties/a"),
        ({"$defs": {"unused": {"unevaluatedItems": False}}}, "'unevaluatedItems' at #/$defs/unused"),
        ({"anyOf": [{"type": "null"}, {"x-guidance": {"lenient": True}}]}, "'x-guidance' at #/anyOf/1"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "string"}}, "not"),
        ({"type": "string", "format": "uri-template"}, "uri-template"),
        ({"type": "string", "pattern": "^(?=a)b$"}, "look-around"),
        ({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}, "oneOf"),
        ({"$ref": "http://example.org/schema"}, "example.org"),
        ({"type": "strin"}, "strin"),
        ({"items": 3}, "has 3 at #/items"),
        ({"enum": []}, "Unsatisfiable"),
        ({"type": "string", "minLength": 4 * LONGEST_ENDING_TOKENS * 8}, "JSON schema"),
    ],
)
def test_what_a_schema_says_and_the_grammar_cannot_do_is_refused_by_name(
    miniature: Gemma, schema: dict[str, Any], named: str
) -> None:
    with pytest.raises(UsageError) as refused:
        miniature.json_grammar(schema)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("keyword", ["default", "examples", "const", "enum"])
def test_values_are_no_schemas(miniature: Gemma, keyword: str) -> None:
    value: Any = {"fooBar": {"contentEncoding": 1}}
    miniature.json_grammar({keyword: [value] if keyword in ("enum", "examples") else value})


@pytest.mark.parametrize(
    ("schema", "shortest"),
    [
        ({"type": "null"}, "null"),
        (PERSON, '{"name":"","ages":[]}'),
        ({"type": "array", "items": {"type": "integer", "minimum": 100, "maximum": 999}, "minItems": 2}, "[100,100]"),
        ({"anyOf": [PERSON, {"type": "array", "maxItems": 1}]}, "[]"),
        ({"type": "string", "pattern": "^a+b$"}, '"ab"'),
        ({"type": "number", "exclusiveMinimum": 0}, "1"),
        ({"enum": ["a long answer", "no"]}, '"no"'),
        ({"type": "object", "properties": {"a": {}, "b": {}}}, "{}"),
    ],
)
def test_the_shortest_instance_is_found(miniature: Gemma, schema: dict[str, Any], shortest: str) -> None:
    grammar = miniature.json_grammar(schema)
    assert grammar.shortest is not None
    tokenizer = miniature.prompts.tokenizer
    jsonschema.validate(json.loads(tokenizer.decode(grammar.shortest)), schema)
    assert len(grammar.shortest) <= len(tokenizer.encode(shortest))


def test_a_place_admits_what_may_come_and_ends_where_it_may(miniature: Gemma) -> None:
    grammar = miniature.json_grammar(PERSON)
    place = grammar.start()
    assert not place.may_end
    assert not place.admitted()[grammar.stop_id]
    assert grammar.shortest is not None
    for token in grammar.shortest:
        assert place.admitted()[token]
        ending = place.ending(100)
        assert ending is not None
        following = place.after(token)
        assert following is not None
        place = following
    assert place.may_end
    assert place.ending(0) == []
    assert place.ending(-1) is None
    assert place.admitted()[grammar.stop_id]
    assert grammar.start().ending(len(grammar.shortest) - 1) is None
