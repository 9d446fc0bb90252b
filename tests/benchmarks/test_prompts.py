from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.prompts import default_prompts, digest, miniature_prompts, read_prompts
from gemma_mlx.errors import UsageError


def written(folder: Path, text: str) -> Path:
    file = folder / "prompts"
    file.write_text(text, encoding="utf-8")
    return file


def test_plain_lines_are_prompts(tmp_path: Path) -> None:
    found = read_prompts(written(tmp_path, 'One "prompt"\n\n  [2]\n'))
    assert [(prompt.kind, prompt.text) for prompt in found] == [("text", 'One "prompt"'), ("text", "[2]")]


def test_json_lines_name_kind_and_media(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    [first, second] = read_prompts(
        written(tmp_path, '{"kind": "caption", "image": "a.png", "text": "What?"}\n{"text": "x"}')
    )
    assert (first.kind, first.image, first.audio) == ("caption", tmp_path / "a.png", None)
    assert [part["type"] for part in first.messages[0]["content"]] == ["image", "text"]
    assert second.kind == "text"


def test_a_conversation_keeps_its_roles_and_finds_its_media(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"one")
    said = [{"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}]},
            {"role": "assistant", "content": "A circle."}, {"role": "user", "content": "Where?"}]  # fmt: skip
    line = json.dumps({"messages": said, "answer": "Left."})
    [found] = read_prompts(written(tmp_path, line))
    assert found.answer == "Left."
    assert [message["role"] for message in found.messages] == ["user", "assistant", "user"]
    assert found.messages[0]["content"][0] == {"type": "image", "image": tmp_path / "a.png"}

    digests = [digest([found])]
    (tmp_path / "a.png").write_bytes(b"other")
    digests.append(digest(read_prompts(written(tmp_path, line))))
    for old, new in (("Left.", "Right."), ("Where?", "Who?")):
        digests.append(digest(read_prompts(written(tmp_path, line.replace(old, new)))))
    assert len({*digests}) == 4


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("not JSON", "is not JSON"),
        ("[1]", "is list, not an object"),
        ('{"prompt": "x"}', "names 'prompt'"),
        ('{"text": 3}', "holds 3 as text"),
        ('{"text": ""}', "holds '' as text"),
        ('{"text": "x", "image": "gone.png"}', "gone.png"),
        ('{"kind": "prose"}', "neither text nor image nor audio"),
        ('{"text": "x", "answer": ""}', "holds '' as answer"),
        ('{"messages": []}', "messages must be a list"),
        ('{"messages": "Hi"}', "messages must be a list"),
        ('{"messages": ["Hi"]}', "messages must be a list"),
        ('{"messages": [{"role": "user", "content": "Hi"}], "text": "x"}', "holds messages and text"),
        ('{"messages": [{"role": "user", "content": [{"type": "audio", "audio": "gone.wav"}]}]}', "gone.wav"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(UsageError, match="line 3 of") as error:
        read_prompts(written(tmp_path, f'{{"text": "fine"}}\n\n{line}\n'))
    assert told in str(error.value)


def test_only_the_end_of_a_line_ends_a_prompt(tmp_path: Path) -> None:
    texts = ["one\u2028two", "three\x85four"]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    file = tmp_path / "prompts"
    file.write_bytes("\r\n".join(lines).encode())
    assert [prompt.text for prompt in read_prompts(file)] == texts


@pytest.mark.parametrize("indent", [None, 1])
def test_one_json_list_is_not_taken_for_plain_text(tmp_path: Path, indent: int | None) -> None:
    with pytest.raises(UsageError, match="is one JSON list, not JSON Lines"):
        read_prompts(written(tmp_path, json.dumps([{"text": "a"}, {"text": "b"}], indent=indent)))


def test_a_file_without_prompts_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no prompt"):
        read_prompts(written(tmp_path, "\n\n"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="text file in UTF-8"):
        read_prompts(tmp_path / "binary")


def test_the_default_prompts_are_of_the_promised_kinds_and_have_their_files() -> None:
    assert {prompt.kind for prompt in default_prompts()} == {"prose", "code", "json", "transcript", "caption"}
    assert {prompt.kind for prompt in miniature_prompts()} == {"caption", "reading", "transcript", "dialogue"}
    for prompt in [*default_prompts(), *miniature_prompts()]:
        assert all(path is None or path.is_file() for path in (prompt.image, prompt.audio))
    assert digest(default_prompts()) != digest(default_prompts()[1:])
