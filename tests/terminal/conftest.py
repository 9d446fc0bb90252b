from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image, ImageDraw

from gemma_mlx.home import miniature_folder
from gemma_mlx.terminal.cli import main
from tests.programs import require
from tests.terminal.tmux import Chat


@dataclass(frozen=True)
class Ended:
    """What a command wrote and its exit code."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


Run = Callable[..., Ended]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees or changes the settings of who runs it."""
    home = tmp_path / "home"
    monkeypatch.setenv("GEMMA_MLX_HOME", str(home))
    for name in ("GEMMA_MLX_MODEL", "GEMMA_MLX_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process; `stdin` is what is piped into it."""

    def run_command(*arguments: object, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr(sys, "argv", ["gemma-mlx", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        written = capsys.readouterr()
        return Ended(int(end.value.code or 0), written.out, written.err)

    return run_command


@contextmanager
def named_pipe(data: bytes) -> Iterator[Path]:
    """The name of a pipe with `data` in it, as a shell gives for <(...). It is to be read once."""
    reading, writing = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(writing, data), os.close(writing)))
    writer.start()
    try:
        yield Path(f"/dev/fd/{reading}")
    finally:
        os.close(reading)
        writer.join()


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with picture.png, tone.wav and what cannot be read."""
    folder = tmp_path_factory.mktemp("media")
    picture = Image.new("RGB", (320, 240), "white")
    ImageDraw.Draw(picture).ellipse((60, 40, 220, 200), fill=(214, 40, 40))
    picture.save(folder / "picture.png")
    whole = (folder / "picture.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("This is no picture.", encoding="utf-8")
    (folder / "empty.png").write_bytes(b"")
    tone = np.sin(np.arange(16_000) / 20).astype(np.float32) * 0.3
    soundfile.write(folder / "tone.wav", tone, 16_000)
    soundfile.write(folder / "silent.wav", tone[:0], 16_000)
    soundfile.write(folder / "long.wav", np.tile(tone, 31), 16_000)
    return folder


ChangedModel = Callable[..., Path]


@pytest.fixture
def changed_model(tmp_path: Path) -> ChangedModel:
    """The miniature with one file changed: to other text, or in values: `changed_model("config.json", {"a.b": 1})`."""

    def change(file: str, values: dict[str, Any] | str) -> Path:
        folder = tmp_path / "changed"
        folder.mkdir()
        for path in miniature_folder().iterdir():
            if path.name != file:
                (folder / path.name).symlink_to(path.resolve())
        if isinstance(values, str):
            (folder / file).write_text(values, encoding="utf-8")
            return folder
        data = json.loads((miniature_folder() / file).read_text(encoding="utf-8"))
        for name, value in values.items():
            section = data
            *outer, key = name.split(".")
            for part in outer:
                section = section[part]
            section[key] = value
        (folder / file).write_text(json.dumps(data), encoding="utf-8")
        return folder

    return change


@pytest.fixture
def endless_model(changed_model: ChangedModel) -> Path:
    """A model that never ends its turn."""
    data = json.loads((miniature_folder() / "generation_config.json").read_text(encoding="utf-8"))
    return changed_model(
        "generation_config.json", {"suppress_tokens": [*data["suppress_tokens"], *data["eos_token_id"]]}
    )


OpenChat = Callable[..., Chat]


@pytest.fixture
def open_chat(own_home: Path) -> Iterator[OpenChat]:
    """Begins chats on terminals of their own, with the flags and the window that are given; ends them afterwards."""
    require("tmux")
    opened: list[Chat] = []

    def open_one(*flags: object, **window: Any) -> Chat:
        opened.append(Chat(*flags, **window))
        return opened[-1]

    yield open_one
    for chat in opened:
        chat.close()
