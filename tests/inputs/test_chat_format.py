from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from gemma_mlx.errors import CheckpointError, InputError
from gemma_mlx.inputs.chat_format import ChatFormat

ROOT = Path(__file__).parents[2]
MINIATURE = ROOT / "assets" / "miniature"
HELLO = [{"role": "user", "content": "Hello"}]


def golden_renders() -> dict[str, dict[str, Any]]:
    path = ROOT / "tests" / "golden" / "chat_template_golden.json"
    renders: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return renders


@pytest.mark.parametrize("name", golden_renders())
def test_released_template_renders_as_in_transformers(name: str) -> None:
    golden = golden_renders()[name]
    asked = dict(golden["input"])
    messages = asked.pop("messages")
    rendered = ChatFormat.from_folder(MINIATURE).render(messages, thinking=asked.pop("enable_thinking", False), **asked)
    assert rendered == golden["rendered"]


def test_fingerprint_is_the_sha256_of_the_template(folder: Path) -> None:
    text = (folder / "chat_template.jinja").read_bytes()
    assert ChatFormat.from_folder(folder).fingerprint == hashlib.sha256(text).hexdigest()
    assert ChatFormat("a").fingerprint != ChatFormat("b").fingerprint


def test_template_in_the_tokenizer_config_is_used_where_there_is_no_file(tmp_path: Path) -> None:
    config = {"chat_template": "{{ bos_token }}{{ messages[0].content }}", "bos_token": {"content": "<s>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert ChatFormat.from_folder(tmp_path).render(HELLO) == "<s>Hello"
    (tmp_path / "chat_template.jinja").write_text("file", encoding="utf-8")
    assert ChatFormat.from_folder(tmp_path).render(HELLO) == "file"


def test_folder_without_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no chat_template\.jinja; copy it"):
        ChatFormat.from_folder(tmp_path)


def test_blocks_leave_no_blank_lines_and_loops_can_break() -> None:
    template = "{% for m in messages %}\n  {% if loop.index == 2 %}{% break %}{% endif %}\n{{ m.role }}\n{% endfor %}"
    assert ChatFormat(template).render(HELLO * 3) == "user\n"


def test_json_is_not_escaped_for_html() -> None:
    rendered = ChatFormat("{{ messages[0] | tojson }}").render([{"role": "user", "content": "<é> & 'x'"}])
    assert rendered == '{"role": "user", "content": "<é> & \'x\'"}'


def test_template_knows_the_date() -> None:
    assert ChatFormat("{{ strftime_now('%Y') }}").render(HELLO).startswith("20")


@pytest.mark.parametrize(
    ("template", "claim"),
    [
        ("{{ raise_exception('roles must\n alternate') }}", "refused the messages: roles must alternate; "),
        ("{{ messages[7].content }}", "refused the messages: .*; "),
        ("{{ messages[0].content + 1 }}", r"failed \(TypeError: .*\); check each message's role and content"),
        ("{{ 1 / 0 }}", r"failed \(ZeroDivisionError: "),
        ("{{ ''.__class__.__mro__ }}", "refused the messages: .*unsafe"),
        ("{{ messages.append(1) }}", "refused the messages: .*unsafe"),
        ("{% for i in range(999999999) %}{% endfor %}", r"failed \(OverflowError: "),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", r"failed \(RecursionError: "),
    ],
)
def test_template_that_fails_is_one_line(template: str, claim: str) -> None:
    with pytest.raises(InputError, match=claim) as raised:
        ChatFormat(template).render(HELLO)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("template", ["{{ open", "{% nonsense %}", "{{ a | no_such_filter }}"])
def test_template_that_is_not_jinja_is_refused_at_load(template: str) -> None:
    with pytest.raises(CheckpointError, match=r"not valid .*; copy it") as raised:
        ChatFormat(template)
    assert "\n" not in str(raised.value)
