"""A JSON schema as what may come next, token by token; and the way to the end of an answer that it allows.

llguidance keeps the state of the parser and says which tokens it admits. What is ours is that nothing in a schema is
passed over (`check_schema`), and `Place.ending`: tokens that close what is open, found by walking ahead of the answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gemma_mlx.errors import UsageError

if TYPE_CHECKING:
    from llguidance import LLMatcher

LONGEST_ENDING_TOKENS = 4096
"""A schema without an instance as short as this is refused."""

_SCHEMA_IN = frozenset(["additionalProperties", "additionalItems", "items"])
_SCHEMAS_BY_NAME_IN = frozenset(["properties", "patternProperties", "$defs", "definitions"])
_SCHEMAS_LISTED_IN = frozenset(["anyOf", "oneOf", "allOf", "prefixItems"])
_VALUES = frozenset(
    [
        "$ref",
        "type",
        "enum",
        "const",
        "required",
        "minProperties",
        "maxProperties",
        "minItems",
        "maxItems",
        "minLength",
        "maxLength",
        "pattern",
        "format",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
    ]
)
_ANNOTATIONS = frozenset(
    ["$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"]
)
_KNOWN = _SCHEMA_IN | _SCHEMAS_BY_NAME_IN | _SCHEMAS_LISTED_IN | _VALUES | _ANNOTATIONS

_LETTERS = b"abcdefghijklmnopqrstuvwxyz"
_CONTAINER_ENDS = b"}]"
_AFTER_A_VALUE = b",:"
_SHORT_VALUES = b'1234567890"ntf-.'
"""What begins or goes on with a short value, the shortest first. 1 before 0: what must not be 0 ends sooner."""
_WALKS = 24
"""How many ways to an end are tried for the shortest one."""
_FIRST_WALKS = 6
"""How many are tried for one at all."""


def check_schema(schema: object, at: str = "#") -> None:
    """UsageError for a keyword that would be passed over. What the grammar cannot do, it says itself."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise UsageError(f"the JSON schema has {json.dumps(schema)[:40]} at {at}; a schema is an object")
    for keyword, value in schema.items():
        if keyword not in _KNOWN:
            raise UsageError(f"the JSON schema says {keyword!r} at {at}, which is not supported here; take it out")
        for place, inner in _inner_schemas(keyword, value):
            check_schema(inner, f"{at}/{place}")


def _inner_schemas(keyword: str, value: object) -> Iterator[tuple[str, object]]:
    if keyword in _SCHEMAS_BY_NAME_IN and isinstance(value, Mapping):
        yield from ((f"{keyword}/{name}", inner) for name, inner in value.items())
    elif keyword in _SCHEMAS_LISTED_IN or (keyword == "items" and isinstance(value, list)):
        if not isinstance(value, list):
            raise UsageError(f"the JSON schema has no list under {keyword!r}; write one there")
        yield from ((f"{keyword}/{index}", inner) for index, inner in enumerate(value))
    elif keyword in _SCHEMA_IN:
        yield keyword, value


class JsonGrammar:
    """A JSON schema over the tokens of one model. UsageError, by name, for what the schema says and this cannot do."""

    def __init__(
        self, schema: Mapping[str, Any], tokenizer_json: str, vocab_size: int, stop_ids: Sequence[int]
    ) -> None:
        """`tokenizer_json` as of a tokenizer.json; `vocab_size` is how many logits the model gives.

        Of `stop_ids`, the first is the one that ends an answer brought to its end.
        """
        from llguidance import LLMatcher, LLTokenizer

        check_schema(schema)
        self.stop_id, self.stop_ids = stop_ids[0], frozenset(stop_ids)
        self.schema = schema
        tokenizer = LLTokenizer(tokenizer_json, n_vocab=vocab_size, eos_token=list(stop_ids))
        try:
            grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides={"whitespace_flexible": False})
            self._matcher = LLMatcher(tokenizer, grammar, log_level=0)
            reason = self._matcher.get_error()
        except ValueError as error:
            reason = str(error)
        if reason:
            raise UsageError(f"the JSON schema cannot be followed: {' '.join(reason.split())}; change it")
        self.spellings = _Spellings([tokenizer.decode_bytes([index]) for index in range(vocab_size)])
        self.shortest = self.start().ending(LONGEST_ENDING_TOKENS, thorough=True)
        """A whole instance, as few tokens as were found."""
        if self.shortest is None:
            raise UsageError(
                f"the JSON schema admits nothing that ends within {LONGEST_ENDING_TOKENS} tokens; change it"
            )

    def start(self) -> Place:
        """Before the first token."""
        return Place(self._matcher.deep_copy(), self.spellings, self.stop_ids)


class _Spellings:
    """How each token is spelled, as arrays over the vocabulary."""

    def __init__(self, spelled: Sequence[bytes]) -> None:
        self.first = np.array([text[0] if text else 0 for text in spelled], dtype=np.uint8)  # [V]
        self.length = np.array([len(text) for text in spelled], dtype=np.int32)  # [V]


class Place:
    """A place in an answer that follows a grammar."""

    def __init__(self, matcher: LLMatcher, spellings: _Spellings, stop_ids: Set[int]) -> None:
        self._matcher = matcher
        self._spellings = spellings
        self._stop_ids = stop_ids

    @property
    def may_end(self) -> bool:
        return self._matcher.is_accepting()

    def admitted(self) -> NDArray[np.bool_]:
        """Which tokens may come next, [V]; those that end an answer where it may end."""
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        return bits[: len(self._spellings.first)].astype(np.bool_)

    def after(self, token: int) -> Place | None:
        """The place after `token`, which is not one that ends the answer; None where it may not come."""
        following = self._matcher.deep_copy()
        return Place(following, self._spellings, self._stop_ids) if following.consume_token(token) else None

    def ending(self, most: int, thorough: bool = False) -> list[int] | None:
        """At most `most` tokens after which the answer may end; None if none were found.

        A way that is found is one that exists, but a shorter one may. The first one tried is nearly always the
        shortest; `thorough` tries many all the same. Others are for where it leads nowhere.
        """
        best: list[int] | None = None
        for number in range(_WALKS):
            limit = most if best is None else len(best) - 1
            if limit < 0 or (number >= _FIRST_WALKS if best is None else not thorough):
                break
            found = self._walk(limit, np.random.default_rng(number) if number > 1 else None, longest=number != 1)
            best = best if found is None else found
        return best

    def _walk(self, most: int, rng: np.random.Generator | None, longest: bool) -> list[int] | None:
        matcher = self._matcher.deep_copy()
        path: list[int] = []
        while not matcher.is_accepting():
            forced = [token for token in matcher.compute_ff_tokens() if token not in self._stop_ids]
            step = forced or self._pick(matcher, rng, longest)
            path += step
            if not step or len(path) > most or not matcher.consume_tokens(step):
                return None
        return path

    def _pick(self, matcher: LLMatcher, rng: np.random.Generator | None, longest: bool) -> list[int]:
        """The token that brings the end nearer, by what its first byte does in JSON."""
        here = Place(matcher, self._spellings, self._stop_ids)
        admitted = np.flatnonzero(here.admitted())
        admitted = admitted[self._spellings.length[admitted] > 0]
        if not len(admitted):
            return []
        first = self._spellings.first[admitted]
        begins = set(np.unique(first).tolist())
        # Within a string both ends of containers are ordinary characters, and letters are welcome.
        in_text = set(_CONTAINER_ENDS) <= begins or (ord('"') in begins and len(begins & set(_LETTERS)) > 3)
        wanted = b'"' if in_text else _CONTAINER_ENDS + _AFTER_A_VALUE
        order = list(wanted) + ([] if in_text else list(_SHORT_VALUES))
        if rng is not None:
            order = order[: len(wanted)] + [int(byte) for byte in rng.permutation(sorted(begins))]
        for byte in order:
            if byte in begins:
                admitted = admitted[first == byte]
                break
        if rng is not None:
            return [int(rng.choice(admitted))]
        lengths = self._spellings.length[admitted]
        return [int(admitted[lengths.argmax() if longest else lengths.argmin()])]
