"""The miniature's chat template writes the released model's chat format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

ROOT = Path(__file__).parents[2]
GOLDEN: dict[str, Any] = json.loads((ROOT / "tests/golden/chat_template_golden.json").read_text(encoding="utf-8"))
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"b": 2, "a": [1.5, None, "x"]}}}


def render(messages: list[dict[str, Any]], **variables: Any) -> str:
    """The template's text, in the environment that transformers gives it."""

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals["raise_exception"] = raise_exception
    source = (ROOT / "assets/miniature/chat_template.jinja").read_text(encoding="utf-8")
    return environment.from_string(source).render(messages=messages, bos_token="<bos>", **variables)


@pytest.mark.parametrize("case", sorted(GOLDEN))
def test_golden_case_is_rendered_byte_for_byte(case: str) -> None:
    assert render(**GOLDEN[case]["input"]) == GOLDEN[case]["rendered"]


def test_arguments_as_json_text_are_refused() -> None:
    call = {"function": {"name": "add", "arguments": '{"a": 1}'}}
    with pytest.raises(TemplateError, match="not a mapping"):
        render([{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]}])


def test_assistant_messages_around_a_tool_response_are_one_turn() -> None:
    text = render(
        [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "3"},
            {"role": "assistant", "content": "It is 3."},
        ]
    )
    assert text == (
        '<bos><|turn>user\nx<turn|>\n<|turn>model\n<|tool_call>call:add{a:[1.5,null,<|"|>x<|"|>],b:2}<tool_call|>'
        '<|tool_response>response:add{value:<|"|>3<|"|>}<tool_response|>It is 3.<turn|>\n'
    )


def test_mapping_response_is_written_key_by_key() -> None:
    turn = {"role": "assistant", "tool_responses": [{"name": "add", "response": {"sum": 3, "exact": True}}]}
    text = render([{"role": "user", "content": "x"}, turn], add_generation_prompt=True)
    assert text.endswith("<|tool_response>response:add{exact:true,sum:3}<tool_response|>")


def test_thoughts_before_the_last_user_message_are_dropped() -> None:
    history = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y", "reasoning": "old"},
        {"role": "user", "content": "z"},
        {"role": "assistant", "content": "w", "reasoning_content": "new"},
    ]
    text = render(history)
    assert "old" not in text
    assert "<|turn>model\n<|channel>thought\nnew\n<channel|>w<turn|>\n" in text


def test_nested_schema_keeps_the_released_order_of_fields() -> None:
    parameters = {
        "type": "object",
        "properties": {
            "tags": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "description": "Tags"},
            "size": {
                "type": "object",
                "properties": {"w": {"type": "integer", "nullable": True}},
                "required": ["w"],
            },
        },
    }
    tool = {"type": "function", "function": {"name": "f", "description": "D", "parameters": parameters}}
    assert (
        '{description:<|"|>D<|"|>,parameters:{properties:{'
        'size:{properties:{w:{nullable:true,type:<|"|>INTEGER<|"|>}},required:[<|"|>w<|"|>],type:<|"|>OBJECT<|"|>},'
        'tags:{description:<|"|>Tags<|"|>,items:{enum:[<|"|>a<|"|>,<|"|>b<|"|>],type:<|"|>STRING<|"|>},'
        'type:<|"|>ARRAY<|"|>}},type:<|"|>OBJECT<|"|>}}<tool|><turn|>\n'
    ) in render([{"role": "user", "content": "x"}], tools=[tool])
