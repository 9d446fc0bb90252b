from __future__ import annotations

import os
from pathlib import Path

import pytest

from gemma_mlx.decoding.session import Session
from gemma_mlx.gemma import Gemma
from gemma_mlx.tasks import chat_cache
from gemma_mlx.tasks.chat_cache import CACHE_FILE, ChatCache


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "chat").mkdir()
    return tmp_path / "chat"


@pytest.fixture(scope="module")
def session(miniature: Gemma) -> Session:
    session = miniature.session()
    miniature.reply([{"role": "user", "content": "Hello"}], session=session, max_tokens=1)
    return session


def cache_of(folder: Path | None) -> ChatCache:
    cache = ChatCache()
    cache.folder = folder
    return cache


def test_what_is_new_is_saved_once(miniature: Gemma, session: Session, folder: Path) -> None:
    cache = cache_of(folder)
    assert cache.save(miniature, miniature.session()) is None
    assert cache_of(None).save(miniature, session) is None
    assert list(folder.iterdir()) == []
    assert cache.save(miniature, session) is None
    assert (folder / CACHE_FILE).stat().st_mode & 0o777 == 0o600
    (folder / CACHE_FILE).unlink()
    assert cache.save(miniature, session) is None
    assert not (folder / CACHE_FILE).exists()


def test_a_save_after_a_turn_is_due_for_many_new_tokens_alone(
    miniature: Gemma, session: Session, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cache_of(folder)
    assert not cache.is_due(session)
    monkeypatch.setattr(chat_cache, "DUE_TOKENS", session.offset)
    assert cache.is_due(session)
    cache.save(miniature, session)
    assert not cache.is_due(session)
    again = cache_of(folder)
    assert again.resume(miniature)[0].offset == session.offset
    assert not again.is_due(session)


def test_the_caches_of_all_chats_have_a_limit(
    miniature: Gemma, session: Session, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [folder.with_name(name) / CACHE_FILE for name in ("older", "newer")]
    for age, path in enumerate(others):
        path.parent.mkdir()
        path.write_bytes(b"x" * 10)
        os.utime(path, (age, age))
        (path.parent / "chat.jsonl").write_bytes(b"")
    monkeypatch.setattr(chat_cache, "MOST_BYTES", session.nbytes + 10)
    assert cache_of(folder).save(miniature, session) is None
    assert [path.exists() for path in others] == [False, True]
    assert all((path.parent / "chat.jsonl").exists() for path in others)
    monkeypatch.setattr(chat_cache, "MOST_BYTES", 100)
    (folder / CACHE_FILE).unlink()
    why = cache_of(folder).save(miniature, session)
    assert why is not None
    assert why.startswith("the warm cache is not saved: it takes 0.0 GB, more than the 0.0 GB for all chats")
    assert not (folder / CACHE_FILE).exists()


def test_a_nearly_full_disk_is_left_to_others(
    miniature: Gemma, session: Session, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: _Usage(2 * session.nbytes - 1))
    why = cache_of(folder).save(miniature, session)
    assert why is not None
    assert "the disk has" in why
    assert list(folder.iterdir()) == []


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free
