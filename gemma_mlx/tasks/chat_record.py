"""A chat as lines of JSON: one for each message, answer, setting, and turn taken back, in the order that they happened.

    {"line": "set", "system": null, "thinking": false, "detail": null}
    {"line": "asked", "turn": 1, "text": "Hello", "media": [], "at": "2026-11-20T09:30:00+01:00", ...settings}
    {"line": "answered", "turn": 1, "answer": "Hello!", "thought": "", "figures": {"model": "gemma-4bit", ...}}
    {"line": "undone", "turn": 1}

A retry is one more answer to the same turn. Turns have numbers, so that a damaged line harms no turn but its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gemma_mlx.inputs.image import BUDGETS, Budget
from gemma_mlx.inputs.media import MEDIA_KINDS
from gemma_mlx.tasks.turn import Attached, Settings, Turn

Line = dict[str, Any]


@dataclass
class Record:
    """What the lines come to."""

    turns: dict[int, Turn] = field(default_factory=dict)
    """Those that are answered and not taken back, by number; their media are not prepared."""
    unanswered: Turn | None = None
    """The last message, where it was sent and no answer came."""
    settings: Settings = field(default_factory=Settings)
    last_number: int = 0
    passed_over: int = 0
    """Lines that say nothing that can be read."""


def settings_line(settings: Settings) -> Line:
    return {"line": "set", **asdict(settings)}


def asked_line(number: int, turn: Turn, files: Sequence[str | None]) -> Line:
    """`files` are the names under which its media are kept, None for one that is not."""
    media = [
        {
            "kind": item.kind,
            "name": item.name,
            "label": item.label,
            "digest": item.digest,
            "detail": item.detail,
            "file": file,
        }
        for item, file in zip(turn.attached, files, strict=True)
    ]
    return {
        "line": "asked",
        "turn": number,
        "text": turn.text,
        "media": media,
        "at": turn.asked_at,
        **asdict(turn.settings),
    }


def answered_line(number: int, turn: Turn) -> Line:
    return {
        "line": "answered",
        "turn": number,
        "answer": turn.answer,
        "thought": turn.thought,
        "figures": dict(turn.figures),
        **asdict(turn.settings),
    }


def undone_line(number: int) -> Line:
    return {"line": "undone", "turn": number}


def replay(lines: Iterable[Mapping[str, Any]], media_folder: Path) -> Record:
    """What `lines` come to, the media being files in `media_folder`."""
    record = Record()
    asked: dict[int, Turn] = {}
    for line in lines:
        try:
            _take(line, record, asked, media_folder)
        except (KeyError, TypeError, ValueError):
            record.passed_over += 1
    if record.last_number in asked and record.last_number not in record.turns:
        record.unanswered = asked[record.last_number]
    return record


def _take(line: Mapping[str, Any], record: Record, asked: dict[int, Turn], media_folder: Path) -> None:
    kind = line["line"]
    if kind == "set":
        record.settings = _settings(line)
    elif kind == "asked":
        media = tuple(_attached(item, media_folder) for item in line["media"])
        turn = Turn(_text(line, "text"), media, _settings(line), _text(line, "at"))
        number = _number(line)
        asked[number] = turn
        record.settings = turn.settings
        record.last_number = max(record.last_number, number)
    elif kind == "answered":
        number, figures = _number(line), dict(line["figures"])
        record.turns[number] = replace(
            asked[number],
            answer=_text(line, "answer"),
            thought=_text(line, "thought"),
            figures=figures,
            settings=_settings(line),
        )
    elif kind == "undone":
        number = _number(line)
        record.turns.pop(number, None)
        asked.pop(number, None)
    else:
        raise ValueError(kind)


def _number(line: Mapping[str, Any]) -> int:
    number = line["turn"]
    if not isinstance(number, int):
        raise TypeError("the number of a turn")
    return number


def _text(line: Mapping[str, Any], name: str) -> str:
    text = line[name]
    if not isinstance(text, str):
        raise TypeError(name)
    return text


def _settings(line: Mapping[str, Any]) -> Settings:
    system, thinking, detail = line["system"], line["thinking"], line["detail"]
    if not (system is None or isinstance(system, str)) or not isinstance(thinking, int) or thinking < 0:
        raise TypeError("settings")
    return Settings(system, thinking, None if detail is None else _budget(detail))


def _budget(value: Any) -> Budget:
    if value != "auto" and value not in BUDGETS:
        raise ValueError("detail")
    budget: Budget = value
    return budget


def _attached(item: Mapping[str, Any], media_folder: Path) -> Attached:
    kind, file = item["kind"], item["file"]
    if kind not in MEDIA_KINDS or not (file is None or isinstance(file, str)):
        raise ValueError("media")
    name = Path(file).name if file else ""  # whatever the line says, it is a file of this folder
    return Attached(
        kind,
        _text(item, "name"),
        _budget(item["detail"]),
        media_folder / (name or "missing"),
        _text(item, "label"),
        _text(item, "digest"),
    )
