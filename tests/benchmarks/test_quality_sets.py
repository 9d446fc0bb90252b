from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.quality_sets import EvalSet, read_hypotheses, read_sets
from gemma_mlx.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sets, which are read by their names and texts alone."""
    for name, text in {
        "menus/a.png": "",
        "menus/a.txt": "SOUP",
        "menus/b.JPG": "",
        "menus/b.txt": " Salad \n",
        "menus/prompt.txt": "Read it.\n",
        "speech/a.wav": "",
        "speech/a.txt": "One, two.",
    }.items():
        path = tmp_path / "sets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "sets"


def test_a_folder_of_sets_is_each_of_them(folder: Path) -> None:
    menus, speech = read_sets([folder])
    assert (menus.name, menus.kind, menus.prompt) == ("menus", "image", "Read it.")
    assert {path.name: text for path, text in menus.expected.items()} == {"a.png": "SOUP", "b.JPG": "Salad"}
    assert (speech.name, speech.kind) == ("speech", "audio")
    assert [one.name for one in read_sets([folder / "speech", folder / "menus"])] == ["speech", "menus"]


def test_the_digest_changes_with_media_texts_and_prompt(folder: Path) -> None:
    digests = [read_sets([folder / "menus"])[0].digest]
    for name in ("a.png", "a.txt", "prompt.txt"):
        (folder / "menus" / name).write_text("other", encoding="utf-8")
        digests.append(read_sets([folder / "menus"])[0].digest)
    assert len({*digests}) == 4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"menus/c.png": ""}, "has no text beside it; write what is right into c.txt"),
        ({"menus/c.txt": ""}, "has no picture or sound beside it"),
        ({"menus/c.wav": "", "menus/c.txt": ""}, "holds pictures and sounds"),
        ({"menus/a.webp": ""}, "two files called 'a'"),
        ({"speech/prompt.txt": "Listen."}, "sounds are transcribed"),
    ],
)
def test_a_set_that_is_not_whole_is_refused(folder: Path, change: dict[str, str], told: str) -> None:
    for name, text in change.items():
        (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=told):
        read_sets([folder])


def test_no_folder_no_media_and_two_of_a_name_are_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    for folders, told in (
        ([folder / "gone"], "is no folder"),
        ([folder / "empty"], "holds no .png"),
        ([folder, folder / "menus"], "two sets are called 'menus'"),
    ):
        with pytest.raises(UsageError, match=told):
            read_sets(folders)


def test_figures_are_over_what_was_found_and_name_the_rest(folder: Path) -> None:
    [speech] = read_sets([folder / "speech"])
    assert speech.figures({"a.wav": "one two"}, spoken=True)["exact"] == 1
    assert speech.figures({"a.wav": "one two"}, spoken=False)["exact"] == 0
    [menus] = read_sets([folder / "menus"])
    figures = menus.figures({"a.png": "SOUR"}, spoken=False)
    assert (figures["files"], figures["texts"], figures["failures"]) == (2, 1, ["b.JPG"])
    assert figures["character_error_rate"] == 0.25
    assert menus.figures({}, spoken=False)["character_error_rate"] is None


def of(sets: list[EvalSet], named: str) -> list[dict[str, str]]:
    hypotheses = read_hypotheses(named, sets)
    return [hypotheses.of(one) for one in sets]


def test_hypotheses_are_found_by_name_and_by_set(folder: Path, tmp_path: Path) -> None:
    sets = read_sets([folder])
    lines = [{"file": "a.mp3", "text": "any\u2028thing"}, {"file": "x/speech/a.wav", "text": "heard", "more": 1}]
    file = tmp_path / "other.jsonl"
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    assert of(sets, f"other={file}") == [{"a.png": "any\u2028thing"}, {"a.wav": "heard"}]
    (tmp_path / "texts" / "speech").mkdir(parents=True)
    (tmp_path / "texts" / "speech" / "a.txt").write_text("One two\n", encoding="utf-8")
    assert of(sets, f"other={tmp_path / 'texts'}") == [{}, {"a.wav": "One two"}]
    assert of(sets, f"other={tmp_path / 'texts' / 'speech'}") == [{}, {"a.wav": "One two"}]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("not JSON", "line 1 of"),
        ('{"file": "a.wav"}', "line 1 of"),
        ('{"file": 3, "text": "x"}', "line 1 of"),
        ("[1]", "line 1 of"),
        ('{"file": "z.wav", "text": "x"}', "names no file of menus, speech"),
        (None, "there is no"),
    ],
)
def test_hypotheses_that_cannot_be_used_are_refused(
    folder: Path, tmp_path: Path, content: str | None, told: str
) -> None:
    if content is not None:
        (tmp_path / "h.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=told):
        read_hypotheses(f"other={tmp_path / 'h.jsonl'}", read_sets([folder]))


@pytest.mark.parametrize("named", ["whisper.jsonl", "=whisper.jsonl", "whisper="])
def test_hypotheses_without_a_name_are_refused(folder: Path, named: str) -> None:
    with pytest.raises(UsageError, match="write NAME=FILE"):
        read_hypotheses(named, read_sets([folder]))
