"""--adapter and --fuse on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gemma_mlx.home import find_model, miniature_folder, samples_folder
from tests.adapters.miniature import write_adapter
from tests.terminal.conftest import Run


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter")


@pytest.mark.parametrize(
    "verb",
    [
        ["ask", "What is 2 + 3?", "-t", 0],
        ["transcribe", samples_folder() / "speech.wav"],
        ["caption", samples_folder() / "scene.png", "-t", 0],
    ],
)
def test_verbs_answer_with_the_adapter(run: Run, adapter: Path, verb: list[object]) -> None:
    plain, adapted = (run(*verb, "-n", 8, "-q", *more) for more in ([], ["--adapter", adapter]))
    assert (plain.code, adapted.code) == (0, 0)
    assert plain.out != adapted.out


def test_chat_answers_with_the_adapter(run: Run, adapter: Path) -> None:
    said = [
        run("chat", "-q", "-n", 8, "-t", 0, *more, stdin=b"What is 2 + 3?\n") for more in ([], ["--adapter", adapter])
    ]
    assert [ended.code for ended in said] == [0, 0]
    assert said[0].out != said[1].out


def test_plan_counts_the_adapter_without_mlx_lm(run: Run, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemma_mlx.adapters.layers.require_mlx_lm", lambda: pytest.fail("imported"))
    found = json.loads(run("plan", "--json", "--adapter", adapter).out)
    assert found["adapter_bytes"] > 0
    without = json.loads(run("plan", "--json").out)
    assert (without["adapter_bytes"], without["weights_bytes"]) == (0, found["weights_bytes"])
    assert "adapter" in run("plan", "--adapter", adapter, "--recipe", "4bit").out


def test_a_fused_model_is_the_default_and_answers(run: Run, adapter: Path, tmp_path: Path) -> None:
    ended = run("convert", miniature_folder(), tmp_path / "fused", "--fuse", adapter, "--json", "-q")
    assert ended.code == 0
    assert json.loads(ended.out)["adapter"] == "adapter"
    assert find_model() == tmp_path / "fused"
    assert run("ask", "Hello", "-n", 3, "-q").code == 0


@pytest.mark.parametrize("verb", [["ask", "Hello", "--adapter"], ["convert", miniature_folder(), "out", "--fuse"]])
def test_what_is_no_adapter_is_one_line(
    run: Run, tmp_path: Path, verb: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    missing = run(*verb, tmp_path / "none")
    assert (missing.code, missing.out, len(missing.errors)) == (2, "", 1)
    (tmp_path / "empty").mkdir()
    empty = run(*verb, tmp_path / "empty")
    assert (empty.code, empty.out, len(empty.errors)) == (1, "", 1)
    assert not list(tmp_path.glob("out*"))
