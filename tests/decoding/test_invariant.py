"""Whatever happened to the caches before, in whatever order, they give the logits of one cold pass.

Prompts and cuts are drawn around the edges of the window W and of the slack: W-1, W, W+1, W+slack and 2W+3, with a
picture and a sound that lie across them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gemma_mlx.decoding.saved_session import Identity, resume, save
from gemma_mlx.decoding.session import Session
from gemma_mlx.model.cache import SLACK_TOKENS, FullCache, RewindError, SlidingCache, SlidingSnapshot
from gemma_mlx.model.decoder import Cache
from gemma_mlx.model.gemma4 import Gemma4
from tests.decoding.test_session import cold, picture, session_answer

WINDOW, SLACK = 8, 3
PROBE = [4, 90, 17]
IDENTITY = Identity("a model", "a template", "float32")

Image = tuple[int, int]


@dataclass
class World:
    """Caches with little slack, and what should be in them: ids, and pictures as (start, stop)."""

    model: Gemma4
    soft_rows: mx.array
    caches: list[Cache]
    ids: list[int]
    images: list[Image]

    def advance(self, ids: Sequence[int], image: Image | None = None) -> NDArray[np.float32]:
        """The logits of one chunk more [L, V]; `image` are indices of `ids` that are a picture's."""
        offset = len(self.ids)
        soft = [(image[0], self.soft_rows[: image[1] - image[0]])] if image else []
        here = [(offset + image[0], offset + image[1])] if image else []
        hidden = self.model(self.model.embed(ids, soft), self.caches, here)
        self.ids += ids
        self.images += here
        logits = np.array(self.model.logits(hidden)[0])
        mx.eval([cache.state() for cache in self.caches])
        return logits

    def cut(self, offset: int) -> int:
        """`offset`, or the beginning of the picture that it lies in."""
        return next((start for start, stop in self.images if start < offset < stop), offset)

    def forget(self, offset: int) -> None:
        del self.ids[offset:]
        self.images = [image for image in self.images if image[1] <= offset]

    def check(self) -> None:
        """The caches stand where they should, and what follows has the logits of one cold pass."""
        assert {cache.offset for cache in self.caches} == {len(self.ids)}
        ids = [*self.ids, *PROBE]
        soft = [(start, self.soft_rows[: stop - start]) for start, stop in self.images]
        hidden = self.model(self.model.embed(ids, soft), self.model.make_caches(), self.images)
        cold = np.array(self.model.logits(hidden[:, -len(PROBE) :])[0])
        assert np.abs(self.advance(PROBE) - cold).max() < 1e-4


def empty_caches(model: Gemma4) -> list[Cache]:
    return [
        SlidingCache(WINDOW, SLACK) if isinstance(cache, SlidingCache) else FullCache(step_tokens=5)
        for cache in model.make_caches()
    ]


Snapshot = tuple[int, list[SlidingSnapshot | None]]


def rewind(world: World, number: int) -> None:
    offset = world.cut(max(0, len(world.ids) - number))
    back = len(world.ids) - offset
    if all(not isinstance(cache, SlidingCache) or cache.can_rewind(back) for cache in world.caches):
        for cache in world.caches:
            cache.rewind(back)
        world.forget(offset)
    else:
        with pytest.raises(RewindError):
            next(cache for cache in world.caches if isinstance(cache, SlidingCache)).rewind(back)


def take_snapshot(world: World, back: int) -> list[Snapshot]:
    """The snapshot of `back` tokens ago, if it can be had."""
    offset = len(world.ids) - back
    sliding = [cache for cache in world.caches if isinstance(cache, SlidingCache)]
    if offset <= 0 or world.cut(offset) != offset or not all(cache.can_rewind(back) for cache in sliding):
        return []
    return [(offset, [cache.snapshot(back) if isinstance(cache, SlidingCache) else None for cache in world.caches])]


def restore(world: World, snapshot: Snapshot) -> None:
    offset, sliding = snapshot
    for cache, saved in zip(world.caches, sliding, strict=True):
        if isinstance(cache, SlidingCache):
            assert saved is not None
            cache.restore(saved)
        else:
            cache.rewind(cache.offset - offset)
    world.forget(offset)


def reload(world: World) -> None:
    fresh = empty_caches(world.model)
    for cache, new in zip(world.caches, fresh, strict=True):
        new.refill(cache.offset, {name: mx.array(np.array(rows)) for name, rows in cache.rows_in_use().items()})
    world.caches = fresh


# A chunk that ends at a cut, or goes on for some tokens; a picture, perhaps wider than the window, with text around it.
CUTS = [WINDOW - 1, WINDOW, WINDOW + 1, WINDOW + SLACK, 2 * WINDOW + 3]
OPERATIONS = st.one_of(
    st.tuples(st.just("up to"), st.sampled_from(CUTS)),
    st.tuples(st.just("text"), st.integers(1, WINDOW + 3)),
    st.tuples(st.just("picture"), st.integers(2, WINDOW + 4)),
    st.tuples(st.just("rewind"), st.integers(1, WINDOW)),
    st.tuples(st.just("snapshot"), st.integers(0, SLACK)),
    st.tuples(st.just("restore"), st.integers(0, 3)),
    st.tuples(st.just("reload"), st.just(0)),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(OPERATIONS, min_size=3, max_size=14), st.integers(0, 90))
def test_caches_give_the_logits_of_a_cold_pass_after_anything(
    tiny_model: Gemma4, operations: list[tuple[str, int]], seed: int
) -> None:
    width = tiny_model.embed_tokens(mx.array([[0]])).shape[-1]
    soft_rows = mx.random.normal((WINDOW + 4, width), key=mx.random.key(1))
    world = World(tiny_model, soft_rows, empty_caches(tiny_model), [], [])
    snapshots: list[Snapshot] = []
    for place, (name, number) in enumerate(operations):
        text = [3 + (seed + 7 * i + 5 * place) % 90 for i in range(40)]
        offset = len(world.ids)
        if name == "text" or (name == "up to" and number > offset):
            world.advance(text[: number if name == "text" else number - offset])
        elif name == "picture":
            world.advance(text[: number + 3], (1, 1 + number))
        elif name == "rewind":
            rewind(world, number)
        elif name == "snapshot":
            snapshots += take_snapshot(world, number)
        elif name == "restore" and snapshots:
            restore(world, snapshots[number % len(snapshots)])
        elif name == "reload" and offset:
            reload(world)
        snapshots = [snapshot for snapshot in snapshots if snapshot[0] <= len(world.ids)]  # the full layers lead there
    world.check()


SHARED = [0, *CUTS, WINDOW + SLACK_TOKENS, 100]
TURNS = st.lists(
    st.tuples(
        st.sampled_from(SHARED),  # how much of the prompt before this one keeps
        st.sampled_from([1, 5, WINDOW, 2 * WINDOW + 3, SLACK_TOKENS + WINDOW]),  # how much is new
        st.lists(st.sampled_from(SHARED), max_size=3),  # where snapshots are asked for
        st.integers(0, 2),  # how many tokens are answered
        st.booleans(),  # whether another process goes on
    ),
    min_size=2,
    max_size=5,
)


@settings(max_examples=20, deadline=None)
@given(TURNS, st.sampled_from([13, 64, 512]), st.integers(0, 3), st.integers(3, 30), st.integers(1, 20))
def test_a_session_gives_the_hidden_state_of_a_cold_pass_after_any_turns(
    tiny_model: Gemma4,
    tmp_path_factory: pytest.TempPathFactory,
    turns: list[tuple[int, int, list[int], int, bool]],
    chunk_tokens: int,
    snapshots: int,
    picture_start: int,
    picture_rows: int,
) -> None:
    path = tmp_path_factory.mktemp("invariant") / "session"
    places = [picture(tiny_model, picture_start, picture_rows, seed=1)]
    places.append(picture(tiny_model, picture_start + picture_rows + 2, 30, seed=2, is_image=False))
    session, ids = Session(tiny_model, chunk_tokens=chunk_tokens, snapshots=snapshots), list[int]()
    for number, (shared, new, stable, answered, saved) in enumerate(turns):
        ids = ids[:shared] + [3 + (7 * i + 11 * number) % 90 for i in range(new)]
        media = [medium for medium in places if medium.stop <= len(ids)]
        hidden, reused = session.prefill(ids, media, stable_tokens=stable)
        assert np.abs(np.array(hidden[0, -1]) - cold(tiny_model, ids, media)).max() < 1e-4
        assert reused < len(ids)
        ids += session_answer(tiny_model, session, answered)
        if saved:
            save(session, path, IDENTITY)
            session = Session(tiny_model, chunk_tokens=chunk_tokens, snapshots=snapshots)
            resume(session, path, IDENTITY)
            assert session.offset == len(ids)
