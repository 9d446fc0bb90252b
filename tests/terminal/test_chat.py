from __future__ import annotations

import re
from pathlib import Path

import pytest

from gemma_mlx.terminal.chat.commands import HELP
from tests.terminal.conftest import Ended, Run


def talk(run: Run, *lines: str, flags: tuple[object, ...] = ("-n", 12)) -> Ended:
    return run("chat", *flags, stdin="".join(f"{line}\n" for line in lines).encode())


def gauges(ended: Ended) -> list[tuple[int, int]]:
    """(re-used, prompt) tokens of each turn."""
    found = re.findall(r"re-used (\d+) of (\d+) tokens", ended.err)
    return [(int(reused), int(prompt)) for reused, prompt in found]


def test_each_line_of_a_pipe_is_a_turn_and_answers_are_on_stdout(run: Run) -> None:
    ended = talk(run, "Hello", "", "How are you?")
    assert ended.code == 0
    assert ended.out.count("\n") == 2
    (first, _), (reused, prompt) = gauges(ended)
    assert first == 0
    assert 0 < reused < prompt
    assert "of 8,192" in ended.err


def test_a_picture_goes_out_with_the_next_message_and_stays(run: Run, media: Path) -> None:
    ended = talk(run, f"/image {media / 'picture.png'}", "What is this?", "And now?")
    assert "picture.png 320x240 -> 63 tokens" in ended.err
    (_, first), (reused, second) = gauges(ended)
    assert first > 63
    assert reused > 63
    assert second > first


def test_a_picture_of_the_command_line_goes_out_with_the_first_message(run: Run, media: Path) -> None:
    ended = talk(run, "What is this?", flags=("--image", media / "picture.png", "--audio", media / "tone.wav", "-n", 1))
    assert gauges(ended)[0][1] > 63 + 25


@pytest.mark.parametrize("written", ["'{}'", '"{}"', "{}"])
def test_a_path_may_be_quoted_or_plain(run: Run, media: Path, tmp_path: Path, written: str) -> None:
    path = tmp_path / "my picture.png"
    path.symlink_to(media / "picture.png")
    assert talk(run, f"/image {written.format(path)}").code == 0


def test_a_dragged_path_has_backslashes(run: Run, media: Path, tmp_path: Path) -> None:
    (tmp_path / "my (new) picture.png").symlink_to(media / "picture.png")
    assert talk(run, rf"/image {tmp_path}/my\ \(new\)\ picture.png").code == 0


@pytest.mark.parametrize(
    "command",
    [
        "/nonsense",
        "/image",
        "/image no/such.png",
        "/audio no/such.wav",
        "/detail 71",
        "/think maybe",
        "/image 'open",
        "/load no-such",
        "/model no/such",
        "/mic",
    ],
)
def test_a_wrong_command_is_one_line_and_the_chat_goes_on(run: Run, command: str) -> None:
    ended = talk(run, command, "Hello")
    assert len(ended.errors) == 1
    assert len(gauges(ended)) == 1
    assert ended.code == 1  # in a pipe, whoever sent it learns that something failed


def test_detail_counts_for_pictures_attached_after_it(run: Run, media: Path) -> None:
    ended = talk(run, f"/image {media / 'picture.png'}", "/detail 140", f"/image {media / 'picture.png'}")
    first, second = re.findall(r"-> (\d+) tokens", ended.err)
    assert int(first) <= 70 < int(second) <= 140
    assert "(2 attached)" in ended.err


def test_reset_forgets_turns_and_waiting_pictures(run: Run, media: Path) -> None:
    ended = talk(run, "Hello", f"/image {media / 'picture.png'}", "/reset", "Hello")
    (first, prompt), (second, again) = gauges(ended)
    assert (first, second) == (0, 0)
    assert prompt == again


def test_drop_takes_back_what_waits_and_nothing_else(run: Run, media: Path) -> None:
    ended = talk(run, "Hello", f"/image {media / 'picture.png'}", "/drop", "And now?", "/drop")
    assert "taken back: picture.png 320x240 -> 63 tokens" in ended.err
    assert "nothing waits" in ended.err
    (_, first), (reused, second) = gauges(ended)
    assert reused > 0
    assert second < first + 63


def test_a_line_that_is_not_utf8_is_one_line_and_the_next_is_answered(run: Run) -> None:
    ended = run("chat", "-n", 12, stdin=b"\xff\nHello\n")
    assert ended.code == 1
    assert len(ended.errors) == 1
    assert "not UTF-8" in ended.errors[0]
    assert len(gauges(ended)) == 1


def test_system_changes_the_prompt(run: Run) -> None:
    ended = talk(run, "Hello", "/reset", "/system Be brief.", "Hello", "/reset", "/system", "Hello")
    first, second, third = (prompt for _, prompt in gauges(ended))
    assert first == third < second


THOUGHT = "The user wants a sum"
"""What the miniature thinks of `What is 2 + 3?`."""


def test_thinking_goes_to_stderr_and_can_be_switched_off(run: Run) -> None:
    ended = talk(run, "/think on", "What is 2 + 3?", "/think off", "What is 2 + 3?", flags=("-n", 60))
    first, second = ended.err.split("thinking is off")
    assert THOUGHT in first
    assert THOUGHT not in second
    assert THOUGHT not in ended.out
    assert ended.out.count("\n") == 2


def test_thinking_takes_a_budget_and_tells_how_much_it_thought(run: Run) -> None:
    ended = talk(run, "/think 5", "What is 2 + 3?", "/think 0", "What is 2 + 3?", flags=("-n", 60))
    first, second = ended.err.split("thinking is off")
    assert "thinking is on, for at most 5 tokens" in first
    assert "The user wants" in first
    assert THOUGHT not in first
    assert ", 5 tokens of thought," in first
    assert "of thought" not in second
    assert ended.code == 0


@pytest.mark.parametrize("budget", ["", "-1", "1.5", "many", "²", "9" * 5000])
def test_a_budget_of_thoughts_that_is_no_number_is_refused(run: Run, budget: str) -> None:
    ended = talk(run, f"/think {budget}")
    assert ended.code == 1
    assert ended.errors == [f"error: /think takes on, off or a number of tokens, not {budget!r}"]


def test_the_budget_of_the_command_line_is_that_of_the_first_message(run: Run) -> None:
    ended = talk(run, "What is 2 + 3?", flags=("-n", 60, "--thinking", "--thinking-budget", 5))
    assert ", 5 tokens of thought," in ended.err


def test_quit_leaves_and_nothing_after_it_is_read(run: Run) -> None:
    ended = talk(run, "/quit", "Hello")
    assert (ended.code, ended.out) == (0, "")


def test_help_fits_a_screen_and_names_every_command(run: Run) -> None:
    ended = talk(run, "/help")
    assert len(HELP.splitlines()) < 24
    assert max(map(len, HELP.splitlines())) <= 80
    for command in ("/image", "/audio", "/detail", "/think", "/system", "/drop", "/reset", "/quit"):
        assert command in ended.err


def test_stdin_cannot_be_both_messages_and_a_picture(run: Run) -> None:
    assert run("chat", "--image", "-", stdin=b"x").code == 2


def test_history_is_private(own_home: Path) -> None:
    from gemma_mlx.terminal.chat.history import history

    history().store_string("secret")
    assert (own_home / "history").stat().st_mode & 0o777 == 0o600
    assert "secret" in (own_home / "history").read_text(encoding="utf-8")
