from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from gemma_mlx.decoding.prefill import SoftTokens, forward_chunk
from gemma_mlx.decoding.session import Session
from gemma_mlx.model.gemma4 import Gemma4

TURN = [2, 5, 9, 17, 31, 8, 40, 41, 12, 6]
LONG = [3 + (7 * i) % 90 for i in range(120)]


def cold(model: Gemma4, ids: list[int], media: list[SoftTokens] | None = None) -> NDArray[np.float32]:
    """The last hidden state of `ids` in a fresh pass of one chunk."""
    hidden = forward_chunk(model, model.make_caches(), ids, media or [], len(ids))
    return np.array(hidden[0, -1])


def picture(model: Gemma4, start: int, rows: int, seed: int, *, is_image: bool = True) -> SoftTokens:
    """A medium of `rows` random soft tokens; the seed stands for its content."""
    width = model.embed_tokens(mx.array([[0]])).shape[-1]
    embedded = mx.random.normal((rows, width), key=mx.random.key(seed))
    return SoftTokens(start, start + rows, is_image, f"medium {seed}", lambda first, last: embedded[first:last])


def close(found: mx.array, expected: NDArray[np.float32]) -> bool:
    return float(np.abs(np.array(found[0, -1]) - expected).max()) < 1e-4


def test_a_second_turn_pays_only_for_what_is_new(tiny_model: Gemma4) -> None:
    session = Session(tiny_model)
    session.prefill(TURN, stable_tokens=8)
    session.append([])
    longer = [*TURN[:8], 77, 50, 51]
    hidden, reused = session.prefill(longer, stable_tokens=len(longer))
    assert reused == 8
    assert close(hidden, cold(tiny_model, longer))


def test_an_answer_far_longer_than_the_slack_comes_back_through_the_snapshot(tiny_model: Gemma4) -> None:
    session = Session(tiny_model, chunk_tokens=16)
    session.prefill(LONG, stable_tokens=len(LONG) - 3)
    for _ in session_answer(tiny_model, session, 100):
        pass
    again = [*LONG[:-3], 99, 98, 97, 96]
    hidden, reused = session.prefill(again, stable_tokens=len(again))
    assert reused == len(LONG) - 3
    assert close(hidden, cold(tiny_model, again))


def session_answer(model: Gemma4, session: Session, count: int) -> list[int]:
    """Puts `count` tokens after what is cached, one at a time, as decoding does."""
    ids = [(11 * i) % 90 for i in range(count)]
    for index in ids:
        model(model.embed_tokens(mx.array([[index]])), session.caches)
        session.append([index])
    return ids


def test_the_same_prompt_again_computes_at_least_its_last_position(tiny_model: Gemma4) -> None:
    session = Session(tiny_model)
    session.prefill(TURN, stable_tokens=8)
    hidden, reused = session.prefill(TURN, stable_tokens=8)
    assert reused == len(TURN) - 1
    assert close(hidden, cold(tiny_model, TURN))


def test_another_conversation_reuses_nothing_it_should_not(tiny_model: Gemma4) -> None:
    session = Session(tiny_model)
    session.prefill(LONG, stable_tokens=100)
    other = [LONG[0] + 1, *LONG[1:]]
    hidden, reused = session.prefill(other, stable_tokens=100)
    assert reused == 0
    assert close(hidden, cold(tiny_model, other))


def test_an_edit_before_the_snapshot_starts_over(tiny_model: Gemma4) -> None:
    session = Session(tiny_model, chunk_tokens=16)
    session.prefill(LONG, stable_tokens=len(LONG) - 3)
    session_answer(tiny_model, session, 100)
    edited = [*LONG[:20], 1, 2, 3]
    hidden, reused = session.prefill(edited, stable_tokens=20)
    assert reused == 0
    assert close(hidden, cold(tiny_model, edited))


@pytest.mark.parametrize(("snapshots", "reused"), [(0, 0), (1, 0), (2, 0), (3, 30), (4, 30)])
def test_a_rewritten_message_reuses_up_to_the_snapshot_before_it(
    tiny_model: Gemma4, snapshots: int, reused: int
) -> None:
    session = Session(tiny_model, chunk_tokens=16, snapshots=snapshots)
    for stable in (30, 60, 115):
        session.prefill(LONG[: stable + 2], stable_tokens=stable)
    session.prefill([*LONG, *LONG])  # far beyond what the sliding layers rewind
    edited = [*LONG[:50], 1, 2, 3]
    hidden, found = session.prefill(edited)
    assert found == reused
    assert close(hidden, cold(tiny_model, edited))


def test_snapshots_behind_the_kept_prefix_are_dropped(tiny_model: Gemma4) -> None:
    session = Session(tiny_model, snapshots=3)
    session.prefill(LONG, stable_tokens=[30, 60, 115])
    session.prefill([*LONG[:70], *[1] * 200])
    assert session.contents().snapshot_offsets == [30, 60]
    hidden, reused = session.prefill(LONG)
    assert reused == 60
    assert close(hidden, cold(tiny_model, LONG))


@pytest.mark.parametrize("chunk_tokens", [7, 16, 400])
def test_a_snapshot_stands_where_it_was_asked_for_however_far_before_the_end(
    tiny_model: Gemma4, chunk_tokens: int
) -> None:
    session = Session(tiny_model, chunk_tokens=chunk_tokens, snapshots=2)
    media = [picture(tiny_model, 20, 15, seed=4)]
    session.prefill([*LONG, *LONG], media, stable_tokens=[2 * len(LONG) - 2, 36])
    assert session.contents().snapshot_offsets == [36, 2 * len(LONG) - 2]
    other = [*LONG[:36], *[8] * 90]
    hidden, reused = session.prefill(other, media)
    assert reused == 36
    assert close(hidden, cold(tiny_model, other, media))


def test_a_snapshot_never_stands_inside_a_medium(tiny_model: Gemma4) -> None:
    session = Session(tiny_model)
    session.prefill(LONG, [picture(tiny_model, 20, 15, seed=4)], stable_tokens=25)
    assert session.contents().snapshot_offsets == [20]


def test_the_last_of_several_stable_places_has_the_snapshot_where_there_is_but_one(tiny_model: Gemma4) -> None:
    session = Session(tiny_model, snapshots=1)
    session.prefill(LONG, stable_tokens=[100, 20])
    assert session.contents().snapshot_offsets == [20]


def test_a_snapshot_asked_for_again_outlives_one_that_is_not(tiny_model: Gemma4) -> None:
    session = Session(tiny_model, snapshots=2)
    session.prefill(LONG, stable_tokens=[20, 50])
    session.prefill([*LONG, *LONG], stable_tokens=[200, 20])
    assert session.contents().snapshot_offsets == [20, 200]


@pytest.mark.parametrize("chunk_tokens", [5, 13, 400])
def test_a_picture_in_a_later_turn_equals_a_cold_pass(tiny_model: Gemma4, chunk_tokens: int) -> None:
    placeholder = tiny_model._config.image_token_id
    ids = [*LONG[:30], *[placeholder] * 12, 7, 8, 9]
    session = Session(tiny_model, chunk_tokens=chunk_tokens)
    session.prefill(LONG[:28], stable_tokens=26)
    session_answer(tiny_model, session, 70)  # longer than the slack: only the snapshot leads back
    media = [picture(tiny_model, 30, 12, seed=1)]
    hidden, reused = session.prefill(ids, media, stable_tokens=len(ids))
    assert reused >= 26
    assert close(hidden, cold(tiny_model, ids, media))


def test_another_picture_at_the_same_place_is_not_the_same_prompt(tiny_model: Gemma4) -> None:
    placeholder = tiny_model._config.image_token_id
    ids = [2, 5, *[placeholder] * 12, 7, 8, 9]
    session = Session(tiny_model)
    session.prefill(ids, [picture(tiny_model, 2, 12, seed=1)], stable_tokens=15)
    other = [picture(tiny_model, 2, 12, seed=2)]
    hidden, reused = session.prefill(ids, other, stable_tokens=15)
    assert reused == 2
    assert close(hidden, cold(tiny_model, ids, other))


@pytest.mark.parametrize("chunk_tokens", [3, 7])
def test_sound_that_is_cut_by_chunks_equals_one_pass(tiny_model: Gemma4, chunk_tokens: int) -> None:
    ids = [2, 5, *[tiny_model._config.audio_token_id] * 20, 7, 8]
    sound = [picture(tiny_model, 2, 20, seed=3, is_image=False)]
    hidden, _ = Session(tiny_model, chunk_tokens=chunk_tokens).prefill(ids, sound)
    assert close(hidden, cold(tiny_model, ids, sound))


def test_a_prefill_stopped_between_chunks_keeps_the_chunks_that_are_done(tiny_model: Gemma4) -> None:
    session = Session(tiny_model, chunk_tokens=16)

    def interrupt(done: int, total: int) -> None:
        if done >= 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.prefill(LONG, progress=interrupt)
    assert session.offset == 32
    hidden, reused = session.prefill(LONG)
    assert reused == 32
    assert close(hidden, cold(tiny_model, LONG))


def test_a_chunk_that_fails_leaves_an_empty_session(tiny_model: Gemma4) -> None:
    def broken(first: int, last: int) -> mx.array:
        raise KeyboardInterrupt

    session = Session(tiny_model, chunk_tokens=16)
    with pytest.raises(KeyboardInterrupt):
        session.prefill(LONG, [SoftTokens(40, 50, False, "broken", broken)])
    assert session.offset == 0
    hidden, reused = session.prefill(LONG)
    assert reused == 0
    assert close(hidden, cold(tiny_model, LONG))


def test_caches_that_ran_ahead_of_an_open_answer_are_not_trusted(tiny_model: Gemma4) -> None:
    session = Session(tiny_model)
    session.prefill(TURN)
    tiny_model(tiny_model.embed_tokens(mx.array([[50]])), session.caches)
    other = [*TURN[:-1], 33, 34]
    hidden, reused = session.prefill(other)
    assert reused == 0
    assert close(hidden, cold(tiny_model, other))


def test_an_interrupt_in_the_middle_of_a_layer_empties_the_session(tiny_model: Gemma4) -> None:
    session = Session(tiny_model)
    session.prefill(TURN)
    session.caches[0].offset += 1
    session.append([50])
    assert session.offset == 0


def test_a_prefill_writes_its_rows_in_place(tiny_model: Gemma4) -> None:
    session = Session(tiny_model, chunk_tokens=16)
    session.prefill(LONG[:32], reserve_tokens=400_000)
    mx.reset_peak_memory()
    session.prefill(LONG, reserve_tokens=400_000)
    assert mx.get_peak_memory() < mx.get_active_memory() + 0.5 * session.nbytes / len(session.caches)


def test_progress_counts_up_to_the_prompt(tiny_model: Gemma4) -> None:
    seen: list[tuple[int, int]] = []
    Session(tiny_model, chunk_tokens=50).prefill(LONG, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(50, 120), (100, 120), (120, 120)]
