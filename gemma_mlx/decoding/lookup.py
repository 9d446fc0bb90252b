"""Drafts by looking up: where the last tokens stood before, what followed them may follow again.

Transcripts, edits of code and quotations are full of such places. The index holds, for each pair of tokens, where it
stood last, and for each position, where the pair there stood before that:

    position            0 1 2 3 4 5 6 7 8
    token               a b c d x a b c          the last pair, b c, stood at 1: with the a before it the match is three
    draft                     d x a b c d        tokens long; d x a b c followed, and then d again, if it goes round
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

MAX_MATCH_TOKENS = 16
"""A longer match says no more."""

MAX_PLACES = 32
"""How many earlier places are compared, the latest first."""


@dataclass(frozen=True)
class Proposal:
    """Tokens that may come next, and how many tokens before them were the same as here."""

    ids: tuple[int, ...]
    match_tokens: int


class PromptLookup:
    """An index over the tokens of prompt and answer; each token is looked at once, when it comes."""

    def __init__(self, ids: Iterable[int], may_draft: Callable[[int], bool]) -> None:
        """`may_draft` says no to ids that a proposal must end before: a draft never leaves its turn."""
        self._may_draft = may_draft
        self._ids = array("q")
        self._latest: dict[int, int] = {}
        self._earlier = array("q")  # by position of a pair's second token: that of the same pair before; -1 for none
        self.extend(ids)

    def extend(self, ids: Iterable[int]) -> None:
        """`ids` have come after what is here."""
        for index in ids:
            place = len(self._ids)
            pair = self._ids[-1] << 32 | index if place else -1  # one int: a long prompt has many pairs
            self._ids.append(index)
            self._earlier.append(self._latest.get(pair, -1))
            self._latest[pair] = place

    def keep(self, count: int) -> None:
        """Only the first `count` tokens have come after all."""
        while len(self._ids) > count:
            index, earlier = self._ids.pop(), self._earlier.pop()
            pair = self._ids[-1] << 32 | index if self._ids else -1
            if earlier < 0:
                del self._latest[pair]
            else:
                self._latest[pair] = earlier

    def propose(self, limit: int) -> Proposal | None:
        """At most `limit` tokens, those that followed the longest match, of equally long ones the latest."""
        found = Proposal((), 1)
        place = self._earlier[-1] if len(self._ids) > 1 else -1
        for _ in range(MAX_PLACES):
            if place < 0 or found.match_tokens == MAX_MATCH_TOKENS:
                break
            match = self._match_tokens(place)
            if match > found.match_tokens and (ids := self._following(place, limit)):
                found = Proposal(ids, match)
            place = self._earlier[place]
        return found if found.ids else None

    def _match_tokens(self, place: int) -> int:
        """How many tokens up to and with `place` are those at the end; the last two are known to be."""
        ids, last, length = self._ids, len(self._ids) - 1, 2
        while length < MAX_MATCH_TOKENS and length <= place and ids[place - length] == ids[last - length]:
            length += 1
        return length

    def _following(self, place: int, limit: int) -> tuple[int, ...]:
        period = len(self._ids) - 1 - place
        ids = [self._ids[place + 1 + index % period] for index in range(limit)]
        barred = (count for count, index in enumerate(ids) if not self._may_draft(index))
        return tuple(ids[: next(barred, limit)])
