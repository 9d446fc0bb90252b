"""A session comes back from its file as it was, or not at all, whatever happened to the file."""

from __future__ import annotations

import hashlib
import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import gemma_mlx
from gemma_mlx import Gemma
from gemma_mlx.config import Config
from gemma_mlx.decoding.contents import Contents
from gemma_mlx.decoding.prefill import SoftTokens
from gemma_mlx.decoding.saved_session import Identity, UnusableError, code, resume, save, source_hash
from gemma_mlx.decoding.session import Session
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.weights import load_model
from tests.decoding.test_session import LONG, close, cold, picture

IDENTITY = Identity("a model", "a template", "float32")
MORE = [7, 8, 9]
ANSWER = [(11 * i) % 90 for i in range(80)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session"


@pytest.fixture(scope="module")
def media(tiny_model: Gemma4) -> list[SoftTokens]:
    return [picture(tiny_model, 30, 12, seed=1), picture(tiny_model, 50, 20, seed=2, is_image=False)]


def spoken(model: Gemma4, media: list[SoftTokens]) -> Session:
    """A session with a prompt, two snapshots and an answer longer than the slack."""
    session = Session(model, chunk_tokens=20, snapshots=2)
    session.prefill(LONG, media, stable_tokens=[45, len(LONG) - 2])
    session.prefill([*LONG, *ANSWER], media)
    return session


@pytest.fixture(scope="module")
def saved(tiny_model: Gemma4, media: list[SoftTokens], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "session"
    save(spoken(tiny_model, media), path, IDENTITY)
    return path.read_bytes()


def resumed(model: Gemma4, path: Path, identity: Identity = IDENTITY) -> Session:
    session = Session(model, chunk_tokens=16, snapshots=2)
    resume(session, path, identity)
    return session


def why_not(model: Gemma4, path: Path, identity: Identity = IDENTITY) -> str:
    """Why `path` cannot be resumed; the session is empty then, and works."""
    session = Session(model)
    session.prefill([5, 6])
    with pytest.raises(UnusableError) as caught:
        resume(session, path, identity)
    assert session.offset == 0
    hidden, reused = session.prefill(MORE)
    assert (reused, close(hidden, cold(model, MORE))) == (0, True)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kept", "reused"),
    [(len(LONG) + 79, len(LONG) + 79), (len(LONG) + 70, len(LONG) + 70), (len(LONG), len(LONG) - 2), (60, 45)],
)
def test_a_resumed_session_rewinds_and_restores_as_the_saved_one(
    tiny_model: Gemma4, media: list[SoftTokens], path: Path, kept: int, reused: int
) -> None:
    session = spoken(tiny_model, media)
    save(session, path, IDENTITY)
    again = resumed(tiny_model, path)
    assert again.offset == session.offset == len(LONG) + 80
    ids = [*LONG, *ANSWER][:kept] + MORE
    for each in (session, again):
        hidden, found = each.prefill(ids, [item for item in media if item.stop <= kept])
        assert found == reused
        assert close(hidden, cold(tiny_model, ids, [item for item in media if item.stop <= kept]))


def test_a_session_saved_again_is_the_same_file(tiny_model: Gemma4, saved: bytes, path: Path) -> None:
    path.write_bytes(saved)
    save(resumed(tiny_model, path), path, IDENTITY)
    assert path.read_bytes() == saved


@pytest.mark.parametrize(("snapshots", "offsets"), [(0, []), (1, [118]), (2, [45, 118]), (9, [45, 118])])
def test_no_more_snapshots_are_resumed_than_are_kept(
    tiny_model: Gemma4, saved: bytes, path: Path, snapshots: int, offsets: list[int]
) -> None:
    path.write_bytes(saved)
    session = Session(tiny_model, snapshots=snapshots)
    resume(session, path, IDENTITY)
    assert session.contents().snapshot_offsets == offsets


def test_an_empty_session_is_saved_and_resumed(tiny_model: Gemma4, path: Path) -> None:
    save(Session(tiny_model), path, IDENTITY)
    assert resumed(tiny_model, path).offset == 0


def test_only_rows_in_use_are_in_the_file(tiny_model: Gemma4, path: Path) -> None:
    session = Session(tiny_model)
    session.prefill(LONG[:5])
    save(session, path, IDENTITY)
    arrays = mx.load(str(path), format="safetensors")
    assert isinstance(arrays, dict)
    assert {array.shape[2] for array in arrays.values()} == {5}
    assert len(arrays) == 10 * 2 + 2
    assert sum(array.nbytes for array in arrays.values()) < session.nbytes / 20


def test_other_readers_of_safetensors_see_the_rows_of_the_caches(tiny_model: Gemma4, path: Path) -> None:
    session = Session(tiny_model)
    session.prefill(LONG)
    save(session, path, IDENTITY)
    arrays, metadata = mx.load(str(path), format="safetensors", return_metadata=True)
    assert metadata["format"] == "gemma-mlx session"
    for name, array in session.contents().arrays.items():
        assert np.array_equal(np.array(arrays[name]), np.array(array))


def test_bfloat16_comes_back_bit_for_bit(tiny_folder: Path, tiny_config: Config, path: Path) -> None:
    model = load_model(tiny_folder, tiny_config, mx.bfloat16)
    session = Session(model)
    session.prefill(LONG)
    save(session, path, IDENTITY)
    again = Session(model)
    resume(again, path, IDENTITY)
    saved, found = session.contents().arrays, again.contents().arrays
    assert saved.keys() == found.keys()
    for name, array in saved.items():
        assert array.dtype == mx.bfloat16
        assert mx.array_equal(array.view(mx.uint16), found[name].view(mx.uint16)).item()


@pytest.mark.parametrize("where", ["first", "last", "middle", "header", "length", "checksum"])
def test_a_flipped_bit_is_found(tiny_model: Gemma4, saved: bytes, path: Path, where: str) -> None:
    data = bytearray(saved)
    header = int.from_bytes(data[:8], "little")
    places = {"first": 8 + header, "last": len(data) - 1, "middle": (8 + header + len(data)) // 2}
    places |= {"header": data.index(b'"keys') + 12, "length": 1, "checksum": data.index(b"header_sha256") + 30}
    data[places[where]] ^= 1
    path.write_bytes(data)
    assert "damaged" in why_not(tiny_model, path)


def test_any_flipped_bit_is_found(tiny_model: Gemma4, path: Path) -> None:
    session = Session(tiny_model)
    session.prefill(LONG[:6], stable_tokens=4)
    save(session, path, IDENTITY)
    whole, draw = path.read_bytes(), random.Random(1)
    for _ in range(60):
        data = bytearray(whole)
        data[draw.randrange(len(data) if draw.random() < 0.5 else 3000)] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        with pytest.raises(UnusableError):
            resume(session, path, IDENTITY)
        assert session.offset == 0


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 5000, -1])
def test_a_cut_file_is_found(tiny_model: Gemma4, saved: bytes, path: Path, kept: int) -> None:
    path.write_bytes(saved[:kept])
    assert why_not(tiny_model, path) == "it is damaged"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"model": "b"}, "it is of another model"),
        ({"template": "b"}, "it was made with another chat template"),
        ({"dtype": "bfloat16"}, "it was computed in float32, this model computes in bfloat16"),
        ({"code": "9.9 (sources 9)"}, f"it was saved by gemma-mlx {IDENTITY.code}, this is 9.9 (sources 9)"),
    ],
)
def test_a_session_of_something_else_is_refused_with_its_own_reason(
    tiny_model: Gemma4, path: Path, changed: dict[str, str], why: str
) -> None:
    session = Session(tiny_model)
    session.prefill(LONG)
    save(session, path, IDENTITY)
    assert why_not(tiny_model, path, replace(IDENTITY, **changed)) == why
    assert resumed(tiny_model, path).offset == len(LONG)


def test_a_file_of_another_format_is_refused(tiny_model: Gemma4, path: Path) -> None:
    save(Session(tiny_model), path, IDENTITY)
    path.write_bytes(path.read_bytes().replace(b'"version":"1"', b'"version":"2"'))
    assert why_not(tiny_model, path) == "it is of format 2, this reads format 1"
    mx.save_safetensors(str(path) + ".safetensors", {"a": mx.zeros(3)})
    assert "damaged" in why_not(tiny_model, Path(f"{path}.safetensors"))


def test_rows_of_another_kind_or_shape_are_refused(tiny_model: Gemma4, miniature: Gemma, path: Path) -> None:
    session = Session(miniature.model)
    session.prefill(LONG)
    save(session, path, IDENTITY)
    assert "of another kind" in why_not(tiny_model, path)
    session = Session(tiny_model)
    session.prefill(LONG)
    for cache in session.caches:  # as if the model's heads were narrower
        for name, buffer in vars(cache).items():
            if isinstance(buffer, mx.array):
                setattr(cache, name, buffer[..., :8])
    save(session, path, IDENTITY)
    assert "layers.0.keys has shape [1, 2, 71, 8], here a row has [1, 2, 1, 16]" in why_not(tiny_model, path)


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tiny_model: Gemma4, path: Path, tmp_path: Path) -> None:
    assert why_not(tiny_model, path) == "there is no such file"
    assert why_not(tiny_model, tmp_path) == "it is not a file"
    assert "File name too long" in why_not(tiny_model, tmp_path / ("n" * 300))
    os.mkfifo(path)
    assert why_not(tiny_model, path) == "it is not a file"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, None),
        ({"rows": {}}, "it is damaged"),
        ({"snapshot_offsets": [45, 9999]}, "it is damaged"),
        ({"snapshot_offsets": [-1, 118]}, "it is damaged"),
        ({"snapshot_offsets": None}, "it is damaged"),
        ({"keys": list(range(50))}, "it is damaged"),
    ],
)
def test_what_does_not_fit_is_found_also_under_a_right_digest(
    tiny_model: Gemma4, saved: bytes, path: Path, changed: dict[str, Any], why: str | None
) -> None:
    header_bytes = int.from_bytes(saved[:8], "little")
    header = json.loads(saved[8 : 8 + header_bytes])
    metadata = header.pop("__metadata__")
    rows = changed.get("rows", header)
    metadata["known"] = json.dumps(json.loads(metadata["known"]) | changed)
    metadata["header_sha256"] = "0" * 64
    blank = json.dumps({"__metadata__": metadata, **rows}).encode()
    whole = blank.replace(b"0" * 64, hashlib.sha256(blank).hexdigest().encode(), 1)
    path.write_bytes(len(whole).to_bytes(8, "little") + whole + saved[8 + header_bytes :])
    if why is None:
        assert resumed(tiny_model, path).offset == len(LONG) + 80
    else:
        assert why_not(tiny_model, path) == why


def test_a_bug_of_ours_is_not_told_as_damage(tiny_model: Gemma4, saved: bytes, path: Path) -> None:
    class Broken(Session):
        def refill(self, contents: Contents) -> None:
            raise AttributeError("a bug")

    path.write_bytes(saved)
    with pytest.raises(AttributeError, match="a bug"):
        resume(Broken(tiny_model), path, IDENTITY)


def test_any_change_of_the_sources_is_other_code(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    found = []
    for name, text in [("a.py", "x = 1"), ("a.py", "x = 2"), ("model/b.py", "y = 1"), ("model/c.txt", "z")]:
        (tmp_path / name).write_text(text)
        found.append(source_hash(tmp_path))
    (tmp_path / "model" / "b.py").rename(tmp_path / "b.py")
    found.append(source_hash(tmp_path))
    assert found[2] == found[3]
    assert len(set(found)) == 4
    assert source_hash(Path(gemma_mlx.__file__).parent)[:16] in code()
    assert gemma_mlx.__version__ in code()
