"""Random JSON schemas, and answers to them checked by another program.

`python -m tests.decoding.schemas 500` asks the miniature for one answer to each, at every kind of sampling, and says
how many came to an end, were brought to it, and were refused because nothing fits; all others parse and validate.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import jsonschema

from gemma_mlx import Gemma, load
from gemma_mlx.errors import UsageError
from gemma_mlx.home import miniature_folder

Schema = dict[str, Any]

_WORDS = ["red", "blue", "a longer phrase", "ä", 'with "quotes"', "back\\slash", "", "日本", "tab\t"]
_PATTERNS = ["^[a-z]{3}$", "^a+b$", "[0-9]{2}", "^(x|yz)+$", "^\\d{4}-\\d\\d$", "^[A-Z][a-z]*( [A-Z][a-z]*)?$", "q"]
_PROMPTS = ["Hello", "What is 2 + 3?", "Tell me about {braces} and [brackets].", 'Say "}" please', "1 2 3 4 5 6 7 8"]


def random_schema(rng: random.Random, depth: int = 0) -> Schema:
    """Any of the kinds that the grammar knows; below a depth of 3, only simple ones."""
    simple = [_string, _number, _integer, _enum, _const, _boolean, _null, _types]
    return rng.choice(simple if depth >= 3 else [*simple, _object, _object, _array, _any_of, _reference])(rng, depth)


def _string(rng: random.Random, depth: int) -> Schema:
    schema: Schema = {"type": "string"}
    kind = rng.randrange(4)
    if kind == 0:
        schema |= {"pattern": rng.choice(_PATTERNS)}
    elif kind == 1:
        least = rng.randrange(12)
        schema |= {"minLength": least, "maxLength": least + rng.randrange(20)}
    elif kind == 2:
        schema |= {"format": rng.choice(["date", "time", "uuid", "email", "ipv4", "date-time"])}
    return schema


def _number(rng: random.Random, depth: int) -> Schema:
    least = rng.choice([-100, -1.5, 0, 0.25, 7, 1000])
    exclusive = rng.random() < 0.5
    schema: Schema = {"type": "number", "exclusiveMinimum" if exclusive else "minimum": least}
    return schema | ({"maximum": least + rng.choice([1, 2.5, 400])} if rng.random() < 0.5 else {})


def _integer(rng: random.Random, depth: int) -> Schema:
    if rng.random() < 0.3:
        return {"type": "integer", "multipleOf": rng.choice([2, 5, 7, 100])}
    least = rng.choice([-50, 0, 1, 98, 12345])
    return {"type": "integer", "minimum": least, "maximum": least + rng.choice([0, 3, 1000])}


def _enum(rng: random.Random, depth: int) -> Schema:
    return {"enum": rng.sample([*_WORDS, 1, 2.5, None, True, {"a": [1]}, []], rng.randrange(1, 5))}


def _const(rng: random.Random, depth: int) -> Schema:
    return {"const": rng.choice([*_WORDS, 42, False, [1, {"x": None}]]), "description": "always the same"}


def _boolean(rng: random.Random, depth: int) -> Schema:
    return {"type": "boolean"}


def _null(rng: random.Random, depth: int) -> Schema:
    return {"type": "null"}


def _types(rng: random.Random, depth: int) -> Schema:
    return {"type": rng.sample(["string", "integer", "boolean", "null", "object", "array"], 2)}


def _object(rng: random.Random, depth: int) -> Schema:
    names = rng.sample(["a", "name", "größe", 'q"q', "list of things", "x-1", "$id2"], rng.randrange(5))
    schema: Schema = {
        "type": "object",
        "properties": {name: random_schema(rng, depth + 1) for name in names},
        "required": [name for name in names if rng.random() < 0.7],
    }
    kind = rng.randrange(4)
    if kind < 2:
        schema["additionalProperties"] = False
    elif kind == 2:
        schema["additionalProperties"] = random_schema(rng, depth + 2)
    return schema


def _array(rng: random.Random, depth: int) -> Schema:
    least = rng.randrange(4)
    schema: Schema = {"type": "array", "items": random_schema(rng, depth + 1), "minItems": least}
    if rng.random() < 0.5:
        schema["maxItems"] = least + rng.randrange(3)
    if rng.random() < 0.2:
        schema["prefixItems"] = [random_schema(rng, depth + 1)]
    return schema


def _any_of(rng: random.Random, depth: int) -> Schema:
    return {"anyOf": [random_schema(rng, depth + 1) for _ in range(rng.randrange(1, 4))]}


def _reference(rng: random.Random, depth: int) -> Schema:
    if depth:  # a definition is found from the root
        return _array(rng, depth)
    tree = {"type": "object", "properties": {"value": {"type": "integer"}, "next": {"$ref": "#/$defs/tree"}}}
    return {"$ref": "#/$defs/tree", "$defs": {"tree": {**tree, "required": ["value"], "additionalProperties": False}}}


def answer_kind(gemma: Gemma, seed: int) -> str:
    """Asks for one answer to the schema of this seed; AssertionError unless it is whole and right.

    What came of it: "stop", "closed", "too short" for one refused as none fits, or why the schema was refused.
    """
    rng = random.Random(seed)
    schema = random_schema(rng)
    try:
        grammar = gemma.json_grammar(schema)
    except UsageError as error:
        return f"refused: {str(error)[:90]}"
    shortest = len(grammar.shortest or [])
    max_tokens = rng.choice([shortest, shortest + 1, shortest + 3, shortest + rng.randrange(5, 60), 200 + shortest])
    thinking = rng.random() < 0.2
    drawn = {"temperature": rng.choice([0.0, 0.7, 1.0, 30.0]), "top_k": rng.choice([0, 1, 64]), "seed": seed}
    sampling = replace(gemma.sampling(), **drawn, repetition_penalty=rng.choice([1.0, 1.3]), min_p=rng.choice([0, 0.1]))
    try:
        reply = gemma.reply(
            [{"role": "user", "content": rng.choice(_PROMPTS)}],
            grammar=grammar,
            max_tokens=max_tokens,
            thinking=thinking,
            sampling=sampling,
        )
    except UsageError:
        assert max_tokens < shortest + (3 if thinking else 1)
        return "too short"
    assert reply.finish_reason in ("stop", "closed"), (schema, reply)
    assert len(reply.tokens) <= max_tokens
    found = json.loads(reply.text)
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER).validate(
        found
    )
    return reply.finish_reason


def main(count: int) -> None:
    """Prints what came of `count` schemas; the exit code is 1 if one answer was wrong."""
    gemma = load(miniature_folder(), draft="off")
    came: Counter[str] = Counter()
    for seed in range(count):
        try:
            came[answer_kind(gemma, seed)] += 1
        except Exception as error:
            came["wrong"] += 1
            print(f"schema {seed}: {type(error).__name__}: {' '.join(str(error).split())[:600]}", file=sys.stderr)
    print(json.dumps({"schemas": count, **dict(came.most_common())}))
    sys.exit(bool(came["wrong"]))


if __name__ == "__main__":
    main(int(sys.argv[1]))
