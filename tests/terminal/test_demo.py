from __future__ import annotations

import json
from pathlib import Path

import pytest

from gemma_mlx.home import samples_folder
from gemma_mlx.terminal.demo import SCENE, SPEECH, TEXT, Demonstration
from tests.terminal.conftest import Run


def test_demo_does_every_part_of_the_job_as_expected(run: Run) -> None:
    ended = run("demo")
    assert ended.code == 0, ended.out
    assert "every answer as expected" in ended.out
    for verb in ("convert", "caption", "ask", "transcribe", "chat"):
        assert f"$ gemma-mlx {verb}" in ended.out
    assert "(re-used 0 of" in ended.out
    assert ended.out.count("(re-used 0 of") == 1


def test_demo_fails_when_an_answer_is_not_the_expected_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (SCENE, TEXT, SPEECH):
        (tmp_path / name).symlink_to(samples_folder() / name)
    table = {"samples": [{"file": name, "expected": "something else"} for name in (SCENE, TEXT, SPEECH)]}
    (tmp_path / "samples.json").write_text(json.dumps(table), encoding="utf-8")
    assert Demonstration(tmp_path).run() >= 3
    assert capsys.readouterr().out.count("NOT as expected: something else") == 3
