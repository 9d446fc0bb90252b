from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gemma_mlx.gemma import Gemma
from gemma_mlx.inputs.image import BUDGETS
from gemma_mlx.terminal import options
from tests.terminal.conftest import ChangedModel, Run

FIELDS = {
    *("text", "finish_reason", "model", "miniature", "tokens", "prompt_tokens", "reused_tokens", "image_tokens"),
    *(
        *("audio_tokens", "video_tokens"),
        "generated_tokens",
        "thought_tokens",
        "draft_gain",
        "drafted_tokens",
        "accepted_tokens",
        "target_passes",
        "time_to_first_token_s",
    ),
    *("generation_tps", "peak_memory_bytes"),
}


def test_answer_is_on_stdout_alone_and_the_miniature_says_that_it_is_one(run: Run) -> None:
    ended = run("ask", "Hello", "-n", 8)
    assert ended.code == 0
    assert ended.out.strip()
    assert ended.out.endswith("\n")
    assert not ended.out.endswith("\n\n")
    assert ended.err.count("miniature answers") == 1
    assert "tokens/s" in ended.err


def test_quiet_leaves_only_what_must_be_known(run: Run) -> None:
    assert run("ask", "Hello", "-n", 2, "-q").err.splitlines() == [run("ask", "Hello", "-q").err.strip()]


def test_json_is_one_object_with_all_figures(run: Run, media: Path) -> None:
    ended = run("ask", "What?", "--image", media / "picture.png", "--audio", media / "tone.wav", "-n", 3, "--json")
    found = json.loads(ended.out)
    assert ended.out.count("\n") == 1
    assert set(found) == FIELDS
    assert found["miniature"] is True
    assert found["image_tokens"] == 63
    assert found["audio_tokens"] == 25
    assert found["generated_tokens"] == len(found["tokens"]) <= 3
    assert "picture.png 320x240 -> 63 tokens" in ended.err
    assert "tone.wav 1.0 s -> 25 tokens" in ended.err


def test_json_with_logprobs_has_the_best_of_each_token(run: Run) -> None:
    found = json.loads(run("ask", "Hello", "-n", 3, "--json", "--logprobs", 2).out)
    assert [len(best) for best in found["logprobs"]] == [2] * len(found["tokens"])
    assert [best[0][0] for best in found["logprobs"]] == found["tokens"]  # the miniature decodes greedily
    assert all(best[0][1] >= best[1][1] for best in found["logprobs"])


def test_json_with_thinking_has_the_thought(run: Run) -> None:
    found = json.loads(run("ask", "What is 2 + 3?", "--json", "--thinking").out)
    assert found["thought"]
    assert found["thought"] not in found["text"]


def test_a_thinking_budget_holds_and_is_told(run: Run) -> None:
    asked = ("ask", "What is 2 + 3?", "--thinking", "--thinking-budget", 5)
    found = json.loads(run(*asked, "--json").out)
    assert (found["thought_tokens"], found["thought"]) == (5, "The user wants")
    ended = run(*asked)
    assert ended.err.count("The user wants") == 1
    assert "(5 of them thought)" in ended.err
    assert ended.out == found["text"] + "\n"


def test_images_go_before_the_prompt_and_sounds_after_it_in_the_order_given(
    run: Run, media: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second.png"
    second.write_bytes((media / "picture.png").read_bytes())
    named = ("--audio", media / "tone.wav", "what", "--image", media / "picture.png", "--image", second)
    told = run("ask", *named, "-n", 1).err
    assert told.index("picture.png 320x240") < told.index("second.png 320x240") < told.index("tone.wav 1.0 s")


@pytest.mark.parametrize(
    ("arguments", "piped", "text"),
    [
        (["Why?"], b"some text\n", "some text\n\nWhy?"),
        (["-"], b"some text\n", "some text"),
        ([], b"some text", "some text"),
        (["Why?"], b"", "Why?"),
    ],
)
def test_piped_text_goes_before_the_prompt(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], piped: bytes, text: str
) -> None:
    seen: list[object] = []
    stream = Gemma.stream

    def record(self: Gemma, messages: list[dict[str, object]], **options: object) -> object:
        seen.append(messages[-1]["content"])
        return stream(self, messages, **options)

    monkeypatch.setattr(Gemma, "stream", record)
    run("ask", *arguments, "-n", 1, stdin=piped)
    assert seen == [[{"type": "text", "text": text}]]


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_media_are_read_from_stdin(run: Run, media: Path, kind: str) -> None:
    piped = (media / ("picture.png" if kind == "image" else "tone.wav")).read_bytes()
    found = json.loads(run("ask", "What?", f"--{kind}", "-", "-n", 1, "--json", stdin=piped).out)
    assert found[f"{kind}_tokens"] == (63 if kind == "image" else 25)


def test_a_cut_answer_is_an_answer_with_a_note(run: Run) -> None:
    ended = run("ask", "Hello", "-n", 1)
    assert ended.code == 0
    assert "cut after 1 tokens" in ended.err


def test_a_seed_repeats_an_answer(run: Run) -> None:
    answers = {run("ask", "Hello", "-t", 5, "--seed", seed, "-n", 12, "-q").out for seed in (7, 7, 8)}
    assert len(answers) == 2


@pytest.mark.parametrize(
    "flags",
    [
        ["--top-k", "5", "-t", "0"],
        ["--top-k", "5"],  # the miniature decodes greedily
        ["--top-p", "0.5"],
        ["--min-p", "0.5"],
        ["--seed", "1"],
        ["--logprobs", "2"],
        ["--detail", "70"],
        ["--detail", "71", "--image", "picture.png"],
        ["-n", "0"],
        ["-t", "-1"],
        ["-t", "nan"],
        ["-t", "1", "--top-p", "0"],
        ["--top-p", "1.5", "-t", "1"],
        ["--min-p", "2", "-t", "1"],
        ["--repetition-penalty", "0"],
        ["--seed", "-1", "-t", "1"],
        ["--logprobs", "0", "--json"],
        ["--image", "-", "--audio", "-"],
        ["--image", "-", "--image", "-"],
        ["--no-such-flag"],
    ],
)
def test_a_flag_without_effect_or_out_of_range_is_wrong_usage(run: Run, flags: list[str]) -> None:
    ended = run("ask", "Hello", *flags)
    assert (ended.code, ended.out) == (2, "")
    assert "rror" in ended.err.splitlines()[-1]


def test_prompt_and_media_cannot_both_read_stdin(run: Run) -> None:
    assert run("ask", "-", "--image", "-", stdin=b"x").code == 2


@pytest.mark.parametrize("arguments", [[], ["ask"], ["transcribe"], ["caption"], ["convert"], ["nonsense"]])
def test_a_verb_without_what_it_needs_is_wrong_usage(run: Run, arguments: list[str]) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err


def test_version_and_help_exit_with_0(run: Run) -> None:
    assert run("--version").out == "gemma-mlx 0.1.0\n"
    ended = run("ask", "--help")
    assert ended.code == 0
    assert "--repetition-penalty" in ended.out


def test_numbers_in_the_flags_are_those_of_the_model() -> None:
    from gemma_mlx import gemma

    assert options.MAX_TOKENS == gemma.MAX_TOKENS
    assert options.DETAILS == BUDGETS


def test_a_warning_is_one_line(run: Run, changed_model: ChangedModel) -> None:
    ended = run("ask", "Hello", "-n", 1, "-m", changed_model("config.json", {"new_key": 1}))
    assert [line for line in ended.err.splitlines() if "warning: " in line and "new_key" in line]
    assert ".py:" not in ended.err


def asked(run: Run, *arguments: object, stdin: bytes = b"") -> tuple[dict[str, Any], str]:
    ended = run("ask", *arguments, "--json", stdin=stdin)
    assert ended.code == 0
    return json.loads(ended.out), ended.err


DOCUMENT = b"The fox jumps over the dog.\n" * 12


def test_a_second_question_about_a_piped_document_does_not_read_it_again(run: Run, tmp_path: Path) -> None:
    cache = tmp_path / "fox"
    first, told = asked(run, "Who jumps over the dog, " * 15, "--cache", cache, "-n", 5, stdin=DOCUMENT)
    assert first["reused_tokens"] == 0
    assert "warning" not in told
    second, told = asked(run, "How many?", "--cache", cache, "-n", 5, stdin=DOCUMENT)
    assert second["prompt_tokens"] - second["reused_tokens"] < 25
    assert f"{second['reused_tokens']:,} of them re-used" in told
    assert second["tokens"] == asked(run, "How many?", "-n", 5, stdin=DOCUMENT)[0]["tokens"]
    third, _ = asked(run, "How many?", "--system", "Be brief.", "--cache", cache, "-n", 5, stdin=DOCUMENT)
    assert third["reused_tokens"] < 5


def test_a_second_question_about_pictures_does_not_read_them_again(run: Run, media: Path, tmp_path: Path) -> None:
    shared = ("--image", media / "picture.png", "--system", "Be brief.", "--cache", tmp_path / "c", "-n", 3)
    asked(run, "What colour is the circle in this picture, and how many other things are there to be seen?", *shared)
    second, _ = asked(run, "What?", *shared)
    assert second["reused_tokens"] > second["image_tokens"] == 63


def test_a_question_without_a_document_can_be_cached_too(run: Run, tmp_path: Path) -> None:
    for question in ("Hello", "Hello", "Who are you?"):
        assert "warning" not in asked(run, question, "--cache", tmp_path / "c", "-n", 2)[1]


def test_a_cache_of_no_use_is_one_line_and_is_replaced(run: Run, tmp_path: Path) -> None:
    cache = tmp_path / "c"
    asked(run, "Why?", "--cache", cache, "-n", 2, stdin=DOCUMENT)
    cache.write_bytes(cache.read_bytes()[:-1])
    found, told = asked(run, "Why?", "--cache", cache, "-n", 2, stdin=DOCUMENT)
    assert [line for line in told.splitlines() if "warning" in line] == [
        f"warning: the session in {cache} is not used: it is damaged; the prompt is computed anew"
    ]
    assert found["reused_tokens"] == 0
    assert asked(run, "Why?", "--cache", cache, "-n", 2, stdin=DOCUMENT)[0]["reused_tokens"] > 100


def test_a_cache_never_replaces_another_file(run: Run, tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("All my work of three years. " * 9, encoding="utf-8")
    for name in (thesis, tmp_path, tmp_path / "no-such-folder" / "c"):
        ended = run("ask", "Hello", "--cache", name)
        assert (ended.code, ended.out, len(ended.errors)) == (2, "", 1)
    assert thesis.read_text(encoding="utf-8").startswith("All my work")


def test_a_cache_that_cannot_be_saved_costs_no_answer(run: Run, tmp_path: Path) -> None:
    cache = tmp_path / "c"
    (tmp_path / ".c.gemma-mlx-new").mkdir()
    ended = run("ask", "Hello", "--cache", cache, "-n", 2)
    assert ended.code == 0
    assert ended.out.strip()
    assert "warning: cannot save the session" in ended.err
    assert not cache.exists()
