"""Flags that mean the same on every verb."""

from __future__ import annotations

import json

import pytest

from tests.golden.cases import TINY
from tests.terminal.conftest import Run


@pytest.mark.parametrize("verb", [("ask", "Hi."), ("chat",)])
@pytest.mark.parametrize(
    ("bits", "told"), [("4", "'--kv-bits': 4 is not 8"), ("0", "'--kv-bits': 0 is not 8"), ("eight", "'--kv-bits': ")]
)
def test_kv_bits_other_than_8_are_a_usage_error(run: Run, verb: tuple[str, ...], bits: str, told: str) -> None:
    ended = run(*verb, "--kv-bits", bits)
    assert ended.code == 2
    assert ended.out == ""
    assert told in ended.err


@pytest.mark.parametrize("verb", [("ask", "Hi."), ("chat",), ("caption", "picture.png")])
def test_a_budget_of_thoughts_without_thinking_is_a_usage_error(run: Run, verb: tuple[str, ...]) -> None:
    ended = run(*verb, "--thinking-budget", "5")
    assert (ended.code, ended.out) == (2, "")
    assert ended.errors == ["error: --thinking-budget has no effect without --thinking; add it"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("ask", "Hi.", "--json", "--kv-bits", "4"), "4 is not 8"),
        (("ask", "Hi.", "--foo", "--json"), "No such option: --foo; see gemma-mlx ask --help"),
        (("ask", "Hi.", "--json", "-n"), "'-n' requires an argument"),
        (("ask", "Hi.", "--json", "--json-schema", "nowhere"), "cannot read the JSON schema nowhere"),
        (("caption", "--format", "jsonl"), "Missing argument 'FILE'"),
        (("caption", "--format=jsonl", "-n", "0", "x"), "greater than or equal to 1"),
    ],
)
def test_wrong_usage_under_json_is_one_object_on_stderr(run: Run, arguments: tuple[str, ...], told: str) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert [told in json.loads(line)["error"] for line in ended.err.splitlines()] == [True]


def test_json_behind_two_dashes_is_no_flag(run: Run) -> None:
    ended = run("ask", "--foo", "--", "--json")
    assert ended.code == 2
    assert ended.err.startswith("Usage: ")


@pytest.mark.parametrize("verb", [("ask", "Hi."), ("chat",)])
def test_a_model_whose_rows_no_group_divides_refuses_kv_bits(run: Run, verb: tuple[str, ...]) -> None:
    ended = run(*verb, "--kv-bits", "8", "-m", TINY)
    assert (ended.code, ended.out) == (2, "")
    assert "8 rotated and 24 shared dims" in ended.errors[0]


def test_ask_answers_the_same_with_8_bit_rows(run: Run) -> None:
    question = ("ask", "My name is Anna.", "-t", "0", "--json", "-q")
    plain, packed = run(*question), run(*question, "--kv-bits", "8")
    assert (plain.code, packed.code) == (0, 0)
    assert json.loads(plain.out)["text"] == json.loads(packed.out)["text"] != ""


def test_chat_goes_on_over_8_bit_rows(run: Run) -> None:
    lines = b"My name is Anna.\nWhat is my name?\n"
    ended = run("chat", "-t", "0", "--kv-bits", "8", "-q", stdin=lines)
    assert ended.code == 0
    assert "Anna" in ended.out.splitlines()[-1]
