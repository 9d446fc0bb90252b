"""Sets of pictures or sounds with the texts that are right, and the texts that a system found for them.

A set is a folder of files of one kind, each with its text in NAME.txt beside it:

    speech/a.wav  speech/a.txt      what is said in a.wav
    menus/b.png   menus/b.txt       what the answer about b.png should be
    menus/prompt.txt                what to ask about each picture; without it, for a caption

A folder of such folders stands for all of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from benchmarks.error_rates import as_spoken, as_written, error_rates
from gemma_mlx.errors import UsageError
from gemma_mlx.tasks.captioning import PROMPT as CAPTION_PROMPT

_KINDS: dict[str, Literal["image", "audio"]] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp"), "image"),
    **dict.fromkeys((".wav", ".flac", ".mp3", ".ogg"), "audio"),
}
_PROMPT_FILE = "prompt.txt"


@dataclass(frozen=True)
class EvalSet:
    """Files in the order of their names, and what is right for each."""

    name: str
    kind: Literal["image", "audio"]
    prompt: str
    """What is asked about a picture; sounds are transcribed."""
    expected: Mapping[Path, str]

    @cached_property
    def digest(self) -> str:
        """Changes with any file, any text and what is asked."""
        found = hashlib.sha256(self.prompt.encode())
        for path, text in self.expected.items():
            media = hashlib.sha256(path.read_bytes()).hexdigest()
            found.update(repr((path.name, media, text)).encode())
        return found.hexdigest()[:16]

    def figures(self, texts: Mapping[str, str], *, spoken: bool) -> dict[str, Any]:
        """Error rates over the files whose text was found, by name; those without one are named in `failures`."""
        written = as_spoken if spoken else as_written
        found = [(right, texts[path.name]) for path, right in self.expected.items() if path.name in texts]
        return {
            "files": len(self.expected),
            "failures": [path.name for path in self.expected if path.name not in texts],
            **error_rates((written(right), written(text)) for right, text in found).figures,
        }


def read_sets(folders: Sequence[Path]) -> list[EvalSet]:
    """The sets in `folders`. UsageError for one without any, and where a text or its file is missing."""
    found: list[EvalSet] = []
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"--set {str(folder)!r} is no folder; name one of media with NAME.txt beside each")
        inside = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
        sets = [_read_set(place) for place in inside if _media(place)]
        if not sets:
            raise UsageError(f"--set {str(folder)!r} holds no {' '.join(_KINDS)} file; name a folder with media")
        found += sets
    names = [one.name for one in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"two sets are called {twice[0]!r}; rename a folder")
    return found


def _media(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _KINDS and path.is_file())


def _read_set(folder: Path) -> EvalSet:
    files = _media(folder)
    kinds = {_KINDS[path.suffix.lower()] for path in files}
    if len(kinds) > 1:
        raise UsageError(f"{str(folder)!r} holds pictures and sounds; put them into two folders")
    stems = [path.stem for path in files]
    if twice := [stem for stem in stems if stems.count(stem) > 1]:
        raise UsageError(f"{str(folder)!r} holds two files called {twice[0]!r}, and one text; rename one")
    texts = {path.stem: path for path in sorted(folder.glob("*.txt")) if path.name != _PROMPT_FILE}
    if alone := texts.keys() - {*stems}:
        raise UsageError(f"{str(texts[min(alone)])!r} has no picture or sound beside it; remove it or add that")
    if missing := [path for path in files if path.stem not in texts]:
        raise UsageError(f"{str(missing[0])!r} has no text beside it; write what is right into {missing[0].stem}.txt")
    prompt = folder / _PROMPT_FILE
    if prompt.is_file() and kinds == {"audio"}:
        raise UsageError(f"{str(prompt)!r} has no effect: sounds are transcribed; remove it")
    return EvalSet(
        folder.resolve().name,
        kinds.pop(),
        _text(prompt) if prompt.is_file() else CAPTION_PROMPT,
        {path: _text(texts[path.stem]) for path in files},
    )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {str(file)!r} ({error}); it must be a text file in UTF-8") from None


@dataclass(frozen=True)
class Hypotheses:
    """What another system found, by set and file; a set "" stands for any."""

    name: str
    texts: Mapping[tuple[str, str], str]

    def of(self, eval_set: EvalSet) -> dict[str, str]:
        """Its texts for the files of `eval_set`, by the files' names; empty where it knows none of them."""
        found = {}
        for path in eval_set.expected:
            for key in ((eval_set.name, path.stem), ("", path.stem)):
                if key in self.texts:
                    found[path.name] = self.texts[key]
                    break
        return found


def read_hypotheses(named: str, sets: Sequence[EvalSet]) -> Hypotheses:
    """What NAME=FILE in `named` points to: JSON Lines with file and text, or a folder of NAME.txt, or of such folders.

    A file is told by its name without ending; where several sets have that name, by the set's as well, as in
    "speech/a.wav". UsageError where nothing is about any of `sets`.
    """
    name, _, place = named.partition("=")
    path = Path(place)
    if not name or not place:
        raise UsageError(f"--hypotheses {named!r}: write NAME=FILE, as in whisper=whisper.jsonl")
    if not path.exists():
        raise UsageError(f"--hypotheses {named!r}: there is no {place!r}; name JSON Lines or a folder of NAME.txt")
    known = {one.name for one in sets}
    texts = {}
    for file, text in _folder_lines(path) if path.is_dir() else _json_lines(path):
        folder = file.parent.name
        texts[folder if folder in known else "", file.stem] = text
    hypotheses = Hypotheses(name, texts)
    if not any(hypotheses.of(one) for one in sets):
        raise UsageError(f"--hypotheses {named!r} names no file of {', '.join(sorted(known))}; names must be the same")
    return hypotheses


def _folder_lines(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.rglob("*.txt")):
        yield path.relative_to(folder.parent), _text(path)


def _json_lines(file: Path) -> Iterator[tuple[Path, str]]:
    for number, line in enumerate(_text(file).split("\n"), start=1):
        if line.strip():
            try:
                fields = json.loads(line)
                yield Path(fields["file"]), str(fields["text"])
            except (ValueError, KeyError, TypeError, RecursionError):
                told = f"line {number} of {str(file)!r}"
                raise UsageError(f"{told} is no object with file and text; write one a line") from None
