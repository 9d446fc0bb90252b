"""How the recorded demonstration is made."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from assets.demo.film import COLOURS, END_S, LONGEST_S, write_gif
from assets.demo.recording import Recording

ECHO = "while True: line = input('> '); print(f'\\x1b[31mheard {line}\\x1b[0m')"


def recorded(*command: str) -> Recording:
    return Recording([sys.executable, *command], 40, 10, dict(os.environ))


def test_a_recording_holds_what_was_typed_and_shown(tmp_path: Path) -> None:
    recording = recorded("-c", ECHO)
    recording.wait_for(">")
    recording.type("abc")
    recording.press("\r")
    recording.wait_for("heard abc")
    recording.close()
    recording.write(tmp_path / "echo.cast", "echo")
    header, *events = [json.loads(line) for line in (tmp_path / "echo.cast").read_text().splitlines()]
    assert header == {"version": 2, "width": 40, "height": 10, "title": "echo"}
    assert [kind for _, kind, _ in events] == ["o"] * len(events)
    assert [at_s for at_s, _, _ in events] == sorted(at_s for at_s, _, _ in events)
    assert "\x1b[31mheard abc" in "".join(data for _, _, data in events)


def test_a_program_that_does_not_mind_a_hang_up_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assets.demo.recording.PATIENCE_S", 0)
    recording = recorded("-c", "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); print('ready'); input()")
    recording.wait_for("ready")
    recording.close()
    with pytest.raises(ProcessLookupError):
        os.kill(recording._child, 0)


def test_what_never_shows_is_told_with_the_screen() -> None:
    recording = recorded("-c", "print('something else'); input()")
    with pytest.raises(TimeoutError, match="something else"):
        recording.wait_for("this", limit_s=1)
    recording.close()


def test_a_program_that_asks_where_its_cursor_is_gets_an_answer() -> None:
    code = (
        "import sys, tty; tty.setcbreak(0); print('abc\\x1b[6n', end='', flush=True);"
        "print(repr(sys.stdin.read(6)), flush=True)"
    )
    recording = recorded("-c", code)
    recording.wait_for(r"'\x1b[1;4R'")
    recording.close()


def test_a_film_shows_each_screen_in_its_colours(tmp_path: Path) -> None:
    events = [(0.0, "one"), (1.0, "\r\x1b[31mtwo"), (1.01, "\x1b[2J"), (9.0, "\x1b[H\x1b[32m▀▀▀")]
    header = {"version": 2, "width": 20, "height": 4}
    lines = [json.dumps(header), *(json.dumps([at_s, "o", data]) for at_s, data in events)]
    (tmp_path / "a.cast").write_text("\n".join(lines))
    write_gif(tmp_path / "a.cast", tmp_path / "a.gif")
    shown_ms, colours = [], []
    with Image.open(tmp_path / "a.gif") as film:
        for index in range(film.n_frames):  # type: ignore[attr-defined]
            film.seek(index)
            shown_ms.append(film.info["duration"])
            counted = film.convert("RGB").getcolors(4096) or []
            colours.append({"#{:02x}{:02x}{:02x}".format(*colour) for _, colour in counted})
    assert shown_ms == [1000, LONGEST_S * 1000, END_S * 1000]
    assert COLOURS["green"] in colours[2]
    assert COLOURS["green"] not in colours[0]
