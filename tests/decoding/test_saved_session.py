"""A session comes back from its file as it was, or not at all, whatever happened to the file or to who wrote it."""

from __future__ import annotations

import os
import random
import resource
import stat
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from gemma_mlx import Gemma
from gemma_mlx.config import Config
from gemma_mlx.decoding.prefill import SoftTokens
from gemma_mlx.decoding.saved_session import Identity, UnusableError, check_target, resume, save
from gemma_mlx.decoding.session import Contents, Session
from gemma_mlx.errors import GemmaError, UsageError
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.replace_file import replacing
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


def test_only_the_owner_can_read_it(tiny_model: Gemma4, path: Path) -> None:
    beside = path.with_name("session.new")
    beside.write_bytes(b"left by a writer that was killed")
    beside.chmod(0o644)
    save(Session(tiny_model), path, IDENTITY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not beside.exists()


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
        ({"code": "9.9 (cache 9)"}, "it was saved by gemma-mlx 0.1.0 (cache 1), this is 9.9 (cache 9)"),
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


def test_only_a_session_is_ever_replaced(tiny_model: Gemma4, path: Path) -> None:
    path.write_text("The only copy of a thesis. " * 10, encoding="utf-8")
    with pytest.raises(UsageError, match="is no saved session"):
        save(Session(tiny_model), path, IDENTITY)
    assert path.read_text(encoding="utf-8").startswith("The only copy")
    link = path.with_name("link")
    link.symlink_to(path)
    for place in (link, path.parent, Path(os.devnull)):
        with pytest.raises(UsageError, match="not an ordinary file"):
            check_target(place)
    with pytest.raises(UsageError, match="there is no folder"):
        check_target(path.parent / "missing" / "session")
    with pytest.raises(UsageError, match="File name too long"):
        check_target(path.with_name("n" * 300))
    path.write_bytes(b"")
    check_target(path)


def test_a_session_with_an_answer_on_its_way_is_not_saved(tiny_model: Gemma4, path: Path) -> None:
    session = Session(tiny_model)
    session.prefill(LONG)
    save(session, path, IDENTITY)
    tiny_model(tiny_model.embed_tokens(mx.array([[50]])), session.caches)
    with pytest.raises(UsageError, match="an answer is still on its way"):
        save(session, path, IDENTITY)
    assert resumed(tiny_model, path).offset == len(LONG)


def test_a_full_disk_leaves_the_old_file(tiny_model: Gemma4, media: list[SoftTokens], path: Path) -> None:
    session = Session(tiny_model)
    session.prefill(LONG[:6])
    save(session, path, IDENTITY)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(GemmaError, match=r"cannot save the session to .*; free space") as caught:
            save(spoken(tiny_model, media), path, IDENTITY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_two_writers_do_not_mix(tiny_model: Gemma4, path: Path) -> None:
    with replacing(path) as stream:
        with pytest.raises(GemmaError, match=r"another process is writing session\.new"):
            save(Session(tiny_model), path, IDENTITY)
        stream.write(b"whole")
    assert path.read_bytes() == b"whole"


def filled(model: Gemma4, tokens: int) -> Session:
    """A session of `tokens` positions whose full layers hold random rows: a prefill would take its time."""
    session = Session(model)
    session.prefill(LONG)
    contents = session.contents()
    arrays = {
        name: mx.random.normal((1, 1, tokens, array.shape[3])) if name.endswith("rows") else array
        for name, array in contents.arrays.items()
    }
    session.refill(Contents([5] * tokens, [], arrays))
    return session


def test_saving_and_resuming_copy_no_more_than_a_layer(tiny_model: Gemma4, path: Path) -> None:
    session = filled(tiny_model, 20_000)
    layer_bytes = max(array.nbytes for array in session.contents().arrays.values())
    assert layer_bytes > 2_000_000
    tracemalloc.start()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    save(session, path, IDENTITY)
    copied = tracemalloc.get_traced_memory()[1]
    known_bytes = 100 * session.offset  # what stands at each position, as Python and as JSON
    assert mx.get_peak_memory() < before + layer_bytes / 4
    assert copied < known_bytes + layer_bytes / 4
    again = Session(tiny_model)
    before = mx.get_active_memory()
    tracemalloc.reset_peak()
    mx.reset_peak_memory()
    resume(again, path, IDENTITY)
    assert tracemalloc.get_traced_memory()[1] < 2 * known_bytes + layer_bytes / 4
    assert mx.get_peak_memory() < before + again.nbytes + 1.2 * layer_bytes
    tracemalloc.stop()


_SAVE_IN_TURN = """
import sys
from pathlib import Path
from gemma_mlx.config import read_config
from gemma_mlx.decoding.saved_session import Identity, resume, save
from gemma_mlx.decoding.session import Session
from gemma_mlx.weights import load_model

identity, sessions = Identity("a model", "a template", "float32"), []
model = load_model(Path(sys.argv[1]), read_config(Path(sys.argv[1])))
for file in sys.argv[3:]:
    sessions.append(Session(model))
    resume(sessions[-1], Path(file), identity)
while True:
    for session in sessions:
        save(session, Path(sys.argv[2]), identity)
        print("saved", flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_the_old_or_the_new_session(
    tiny_model: Gemma4, tiny_folder: Path, path: Path
) -> None:
    prompts = [[3 + (7 * i + which) % 90 for i in range(1000 + which)] for which in (0, 1)]
    expected = [cold(tiny_model, [*prompt, *MORE]) for prompt in prompts]
    files = [path.with_name(f"session-{which}") for which in (0, 1)]
    for prompt, file in zip(prompts, files, strict=True):
        session = Session(tiny_model)
        session.prefill(prompt)
        save(session, file, IDENTITY)
    command = [sys.executable, "-c", _SAVE_IN_TURN, *map(str, [tiny_folder, path, *files])]
    draw, left_over = random.Random(), 0
    for _ in range(8):
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline()
            time.sleep(draw.random() * 0.03)
            writer.kill()
        left_over += path.with_name("session.new").exists()
        session = resumed(tiny_model, path)
        which = session.offset - 1000
        hidden, reused = session.prefill([*prompts[which], *MORE])
        assert reused == len(prompts[which])
        assert close(hidden, expected[which])
    assert left_over, "no writer was killed while it wrote"
