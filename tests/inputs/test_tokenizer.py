from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Vocabulary

from gemma_mlx.errors import CheckpointError, InputError
from gemma_mlx.inputs.tokenizer import TextStream, Tokenizer
from tests.inputs.small_checkpoint import (
    LISTED_AS_ORDINARY,
    SPECIALS,
    build_byte_level_tokenizer,
    byte_letters,
    write_small_checkpoint,
)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(folder)


@pytest.fixture(scope="module")
def naive(folder: Path) -> Vocabulary:
    """The same tokenizer.json as every other runtime reads it."""
    return Vocabulary.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("byte_level")
    write_small_checkpoint(folder, build_byte_level_tokenizer())
    return Tokenizer(folder)


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
MIXED = st.lists(st.one_of(ANY_TEXT, st.sampled_from(SPECIALS), st.text("<|turn>", max_size=8)), max_size=8)


@settings(max_examples=300, deadline=None)
@given(pieces=MIXED)
def test_encode_equals_the_library_on_text_with_special_tokens(
    pieces: list[str], tokenizer: Tokenizer, naive: Vocabulary
) -> None:
    text = "".join(pieces).replace("\ufdd0", "")
    assert tokenizer.encode(text) == naive.encode(text, add_special_tokens=False).ids


@settings(max_examples=300, deadline=None)
@given(pieces=MIXED)
def test_guarded_text_has_no_special_id_and_decodes_to_itself(pieces: list[str], tokenizer: Tokenizer) -> None:
    text = "".join(pieces)
    ids = tokenizer.encode(tokenizer.guard(text))
    assert not {tokenizer.token_id(special) for special in SPECIALS} & set(ids)
    assert tokenizer.decode(ids) == text


@settings(deadline=None)
@given(text=ANY_TEXT)
def test_guard_changes_nothing_in_text_without_special_tokens(text: str, tokenizer: Tokenizer) -> None:
    if not any(special in text for special in SPECIALS):
        assert tokenizer.encode(tokenizer.guard(text)) == tokenizer.encode(text.replace("<\ufdd0", "<"))


def test_guard_keeps_special_strings_apart_across_seams(tokenizer: Tokenizer) -> None:
    seam = tokenizer.guard("<tu") + tokenizer.guard("rn|>")
    assert tokenizer.special.turn_close not in tokenizer.encode(seam)
    assert tokenizer.special.turn_close in tokenizer.encode("<tu" + "rn|>")


def test_guard_leaves_what_it_is_told_to_keep(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(tokenizer.guard("<|channel>a<channel|><turn|>", keep=("<|channel>", "<channel|>")))
    special = tokenizer.special
    assert [index for index in ids if index in vars(special).values()] == [special.channel_open, special.channel_close]


def test_nothing_is_added_to_the_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("") == []
    assert tokenizer.decode(tokenizer.encode(" two  spaces ")) == " two  spaces "


def test_special_tokens_have_no_text_unless_asked_for(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("<bos><|turn>user\nhello<turn|>")
    assert tokenizer.decode(ids) == "user\nhello"
    assert tokenizer.decode(ids, skip_special=False) == "<bos><|turn>user\nhello<turn|>"


def test_token_named_in_the_config_is_special_even_if_listed_as_ordinary(
    tokenizer: Tokenizer, naive: Vocabulary
) -> None:
    for text in LISTED_AS_ORDINARY:
        index = tokenizer.token_id(text)
        assert naive.decode([index]) == text
        assert tokenizer.is_silent(index)
        assert tokenizer.encode(text) == [index]


def test_special_ids_come_from_the_checkpoint(tokenizer: Tokenizer) -> None:
    assert tokenizer.special.turn_close == SPECIALS.index("<turn|>")
    assert tokenizer.special.image == SPECIALS.index("<|image|>")
    assert tokenizer.vocab_size == tokenizer.token_id("|>") + 1


def test_missing_token_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(CheckpointError, match="no token '<no such>'"):
        tokenizer.token_id("<no such>")


def test_text_that_is_not_unicode_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="not valid Unicode; save it as UTF-8"):
        tokenizer.encode("caf\udce9")


@pytest.mark.parametrize(
    ("name", "content", "claim"),
    [
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("tokenizer.json", "{", "cannot read"),
        ("tokenizer.json", json.dumps({"version": "1.0"}), "cannot read"),
        ("tokenizer_config.json", json.dumps({"eot_token": "<end>"}), "no token '<end>'"),
    ],
)
def test_damaged_tokenizer_is_refused(name: str, content: str | None, claim: str, folder: Path, tmp_path: Path) -> None:
    for source in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / source).write_text((folder / source).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=claim) as raised:
        Tokenizer(tmp_path)
    assert "\n" not in str(raised.value)


@settings(max_examples=300, deadline=None)
@given(pieces=MIXED, cut=st.integers(0, 50))
def test_streamed_text_equals_decoded_text(pieces: list[str], cut: int, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("".join(pieces))
    ids = ids[cut % (len(ids) + 1) :]  # A cut may fall within the bytes of a character.
    stream = TextStream(tokenizer)
    assert "".join([*(stream.push(index) for index in ids), stream.flush()]) == tokenizer.decode(ids)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_ids_stream_to_their_decoded_text(data: st.DataObject, tokenizer: Tokenizer) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 5), max_size=60))
    stream = TextStream(tokenizer)
    assert "".join([*(stream.push(index) for index in ids), stream.flush()]) == tokenizer.decode(ids)


@settings(deadline=None)
@given(text=st.text(st.sampled_from("aé€😀👩‍👧e\u0301 ▁"), max_size=30))
def test_no_piece_holds_half_a_character(text: str, tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer)
    pieces = [*(stream.push(index) for index in tokenizer.encode(text)), stream.flush()]
    assert "\ufffd" not in "".join(pieces)


EMOJI = st.text(st.sampled_from("ahé€😀👩‍👧e\u0301 \ufffd"), max_size=30)


@settings(max_examples=300, deadline=None)
@given(text=st.one_of(EMOJI, ANY_TEXT), cut=st.integers(0, 50))
def test_byte_level_text_streams_in_whole_characters(text: str, cut: int, byte_level: Tokenizer) -> None:
    ids = byte_level.encode(byte_level.guard(text))
    assert byte_level.decode(ids) == text
    stream = TextStream(byte_level)
    pieces = [*(stream.push(index) for index in ids), stream.flush()]
    assert "".join(pieces) == text
    ids = ids[cut % (len(ids) + 1) :]  # A cut may fall within the bytes of a character.
    stream = TextStream(byte_level)
    assert "".join([*(stream.push(index) for index in ids), stream.flush()]) == byte_level.decode(ids)


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_any_byte_level_ids_stream_to_their_decoded_text(data: st.DataObject, byte_level: Tokenizer) -> None:
    bytes_of_characters = [byte_level.token_id(letter) for letter in byte_letters("é€😀")]
    any_id = st.one_of(st.sampled_from(bytes_of_characters), st.integers(0, byte_level.vocab_size + 5))
    ids = data.draw(st.lists(any_id, max_size=40))
    stream = TextStream(byte_level)
    assert "".join([*(stream.push(index) for index in ids), stream.flush()]) == byte_level.decode(ids)


def test_byte_level_text_waits_for_the_rest_of_a_character_only(byte_level: Tokenizer) -> None:
    ids = [byte_level.token_id(letter) for letter in byte_letters("a€b")]
    stream = TextStream(byte_level)
    assert [stream.push(index) for index in ids] == ["a", "", "", "€", "b"]


def test_bytes_that_never_become_a_character_are_not_kept_back(byte_level: Tokenizer) -> None:
    stray = byte_level.token_id(byte_letters("é")[1])
    stream = TextStream(byte_level)
    assert [stream.push(stray) for _ in range(50)] == ["", *["\ufffd"] * 49]
    assert stream.flush() == "\ufffd"


def test_text_comes_as_soon_as_it_is_certain(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer)
    assert [stream.push(index) for index in tokenizer.encode(" the é!")] == [" the", " ", "", "", "é!"]
    assert stream.flush() == ""


def test_work_per_token_does_not_grow(folder: Path) -> None:
    decoded_lengths = []

    class Counting(Tokenizer):
        def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
            decoded_lengths.append(len(ids))
            return super().decode(ids, skip_special)

    tokenizer = Counting(folder)
    stream = TextStream(tokenizer)
    for index in tokenizer.encode("hello the world " * 500):
        stream.push(index)
    assert len(decoded_lengths) > 1000
    assert max(decoded_lengths) <= 2
