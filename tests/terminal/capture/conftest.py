from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.programs import require
from tests.terminal.x11 import VirtualScreen, virtual_screen

Program = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualScreen]:
    require("Xvfb")
    with virtual_screen(tmp_path_factory.mktemp("frame")) as screen:
        yield screen


@pytest.fixture(autouse=True)
def no_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run as on Linux until they say otherwise, also on a Mac."""
    monkeypatch.setattr(sys, "platform", "linux")


@pytest.fixture
def x_screen(_server: VirtualScreen, monkeypatch: pytest.MonkeyPatch) -> VirtualScreen:
    """A screen that DISPLAY names."""
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", _server.display)
    return _server


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Makes a program of that name and Python body the only ones on PATH; what it was called with is at the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(name: str, body: str) -> Path:
        calls = tmp_path / f"{name}.calls"
        script = folder / name
        lines = [
            "import json, sys, pathlib",
            f"open({str(calls)!r}, 'a').write(json.dumps(sys.argv[1:]) + '\\n')",
            body,
        ]
        script.write_text(f"#!{sys.executable}\n" + "\n".join(lines) + "\n")
        script.chmod(0o755)
        return calls

    return make
