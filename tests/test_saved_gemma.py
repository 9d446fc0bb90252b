"""Sessions saved and resumed through Gemma: what makes a file unusable, and that it is said in one line."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from PIL import Image

from gemma_mlx import Gemma, load
from gemma_mlx.decoding.session import Session
from gemma_mlx.errors import GemmaWarning, UsageError
from gemma_mlx.home import miniature_folder


def turn(text: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


QUESTION = [turn("What colour is it?", {"type": "image", "image": Image.new("RGB", (120, 90), "red")})]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session"


@pytest.fixture(scope="module")
def saved(miniature: Gemma, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a session that has answered `QUESTION`."""
    session = miniature.session()
    miniature.reply(QUESTION, session=session, max_tokens=10)
    path = tmp_path_factory.mktemp("saved") / "session"
    miniature.save_session(session, path)
    return path.read_bytes()


def warned(gemma: Gemma, path: Path) -> tuple[Session, str]:
    """The session that comes of `path`, and the one line that says why it is empty."""
    with pytest.warns(GemmaWarning) as caught:
        session = gemma.resume_session(path)
    [warning] = caught
    assert session.offset == 0
    assert "\n" not in str(warning.message)
    assert str(warning.message).endswith("; the prompt is computed anew")
    return session, str(warning.message)


def test_another_process_goes_on_with_the_picture_already_read(miniature: Gemma, saved: bytes, path: Path) -> None:
    path.write_bytes(saved)
    gemma = load(miniature_folder())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session = gemma.resume_session(path)
    messages = [*QUESTION, {"role": "assistant", "content": "Red."}, turn("Who are you?")]
    warm, cold = gemma.reply(messages, session=session), miniature.reply(messages)
    assert warm.tokens == cold.tokens
    assert warm.reused_tokens > warm.image_tokens > 0


def test_a_missing_or_damaged_file_is_one_warning_and_an_empty_session(
    miniature: Gemma, saved: bytes, path: Path
) -> None:
    assert "there is no such file" in warned(miniature, path)[1]
    path.write_bytes(saved[:-1])
    assert "it is damaged" in warned(miniature, path)[1]
    path.write_bytes(saved[:-1] + bytes([saved[-1] ^ 4]))
    session, why = warned(miniature, path)
    assert why == f"the session in {path} is not used: it is damaged; the prompt is computed anew"
    warm, cold = (miniature.reply(QUESTION, session=each, max_tokens=10) for each in (session, None))
    assert warm.reused_tokens == 0
    assert warm.tokens == cold.tokens


def copied(folder: Path) -> Path:
    shutil.copytree(miniature_folder(), folder, symlinks=True)
    return folder


def change(file: Path, new: Callable[[bytes], bytes]) -> None:
    data = file.read_bytes()
    file.unlink()  # what is loaded of it stays
    file.write_bytes(new(data))


def changed_model(folder: Path, file: str, new: Callable[[bytes], bytes]) -> Gemma:
    change(copied(folder) / file, new)
    return load(folder, draft="off")


def another_weight(data: bytes) -> bytes:
    """As another fine-tune: one tensor in the middle of the file has other numbers."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    start, stop = header["model.language_model.layers.2.mlp.up_proj.weight"]["data_offsets"]
    base = 8 + int.from_bytes(data[:8], "little")
    tensor = data[base + start : base + stop]
    return data[: base + start] + tensor[2:] + tensor[:2] + data[base + stop :]


@pytest.mark.parametrize(
    ("file", "new", "why"),
    [
        ("model.safetensors", another_weight, "it is of another model"),
        ("config.json", lambda data: data.replace(b'"rope_theta": 10000.0', b'"rope_theta": 20000.0'), "another model"),
        ("chat_template.jinja", lambda data: data + b"{#- changed -#}", "it was made with another chat template"),
    ],
)
def test_a_session_of_another_model_or_template_is_not_used(
    tmp_path: Path, saved: bytes, path: Path, file: str, new: Callable[[bytes], bytes], why: str
) -> None:
    path.write_bytes(saved)
    assert why in warned(changed_model(tmp_path / "changed", file, new), path)[1]


def test_the_same_model_elsewhere_is_the_same_model(tmp_path: Path, saved: bytes, path: Path) -> None:
    path.write_bytes(saved)
    gemma = changed_model(tmp_path / "copied", "config.json", lambda data: data)
    assert gemma.resume_session(path).offset > 0


def test_shared_messages_are_reused_by_another_question(miniature: Gemma, path: Path) -> None:
    document = "The fox jumps over the dog. " * 20
    shared = [{"role": "user", "content": document}]
    session = miniature.session()
    for index, question in enumerate(["Who jumps over it? " * 10, "How many dogs are there?"]):
        messages = [{"role": "user", "content": f"{document}\n\n{question}"}]
        warm = miniature.reply(messages, session=session, shared_messages=shared, max_tokens=20)
        assert warm.tokens == miniature.reply(messages, max_tokens=20).tokens
        alone = len(miniature.prompts.build(shared, add_generation_prompt=False))
        assert warm.reused_tokens >= (alone - 4) * index
        miniature.save_session(session, path)
        session = miniature.resume_session(path)


def test_more_positions_than_are_planned_are_not_resumed(tmp_path: Path, miniature: Gemma) -> None:
    session = miniature.session()
    reply = miniature.reply([{"role": "user", "content": "Hello"}], session=session)
    miniature.save_session(session, tmp_path / "session")
    smaller = load(miniature.folder, context_tokens=reply.prompt_tokens)
    with pytest.warns(GemmaWarning, match=f"positions, and {reply.prompt_tokens} are planned; the prompt is computed"):
        assert smaller.resume_session(tmp_path / "session").offset == 0
    assert miniature.resume_session(tmp_path / "session").offset == session.offset


def test_a_session_is_of_the_weights_that_were_loaded(tmp_path: Path, path: Path) -> None:
    """Not of those that lie in the folder when it is saved."""
    folder = copied(tmp_path / "model")
    before = load(folder)
    session = before.session()
    before.reply(QUESTION, session=session, max_tokens=3)
    change(folder / "model.safetensors", another_weight)
    before.save_session(session, path)
    assert "it is of another model" in warned(load(folder), path)[1]
    assert before.resume_session(path).offset == session.offset


def test_a_session_of_another_gemma_is_not_saved(miniature: Gemma, path: Path) -> None:
    with pytest.raises(UsageError, match="the session is of another Gemma"):
        load(miniature.folder).save_session(miniature.session(), path)
    assert not path.exists()


def test_saving_and_resuming_leave_no_memory_behind(miniature: Gemma, saved: bytes, path: Path) -> None:
    path.write_bytes(saved)
    session = miniature.resume_session(path)
    assert mx.get_cache_memory() == 0
    mx.eval(mx.zeros(100_000) + 1)
    assert mx.get_cache_memory() > 0
    miniature.save_session(session, path)
    assert mx.get_cache_memory() == 0
