from __future__ import annotations

import json
from pathlib import Path

from gemma_mlx.home import samples_folder
from tests.terminal.conftest import Run, named_pipe


def test_a_caption_of_one_file_is_just_the_caption(run: Run, media: Path) -> None:
    ended = run("caption", media / "picture.png", "-n", 12)
    assert ended.code == 0
    assert ended.out.strip()
    assert "\t" not in ended.out
    assert "picture.png 320x240 -> 63 tokens" in ended.err


def test_captions_of_several_files_are_lines_and_a_bad_file_stops_nothing(run: Run, media: Path) -> None:
    pictures = [str(media / "picture.png"), str(samples_folder() / "scene.png")]
    ended = run("caption", pictures[0], media / "text.png", pictures[1], media / "missing.png", "-n", 12)
    assert ended.code == 1
    assert [line.split("\t")[0] for line in ended.out.splitlines()] == pictures
    assert len(ended.errors) == 2


def test_captions_in_json_are_one_object_per_file(run: Run, media: Path) -> None:
    ended = run("caption", media / "picture.png", media / "cut.png", "--json", "-n", 3, "-q")
    [found] = [json.loads(line) for line in ended.out.splitlines()]
    assert found["file"] == str(media / "picture.png")
    assert found["image_tokens"] == 63
    failure = json.loads(ended.err.splitlines()[-1])
    assert failure["file"] == str(media / "cut.png")
    assert "cut short" in failure["error"]
    assert ended.code == 1


def test_detail_changes_how_many_tokens_a_caption_looks_at(run: Run, media: Path) -> None:
    ended = run("caption", media / "picture.png", "--json", "--detail", 140, "-n", 1)
    assert 63 < json.loads(ended.out)["image_tokens"] <= 140


def test_a_caption_takes_another_prompt_and_stdin(run: Run, media: Path) -> None:
    ended = run(
        *("caption", "-", "--prompt", "How many shapes are there?", "-n", 2, "--json"),
        stdin=(media / "picture.png").read_bytes(),
    )
    default = run("caption", media / "picture.png", "-n", 2, "--json")
    assert json.loads(ended.out)["prompt_tokens"] != json.loads(default.out)["prompt_tokens"]


def test_a_pipe_with_a_name_is_a_picture(run: Run, media: Path) -> None:
    with named_pipe((media / "picture.png").read_bytes()) as pipe:
        ended = run("caption", pipe, "-n", 3)
    assert (ended.code, ended.out) == (0, run("caption", media / "picture.png", "-n", 3).out)


def test_two_readers_of_stdin_are_wrong_usage(run: Run) -> None:
    assert run("caption", "-", "-", stdin=b"x").code == 2


def test_a_filter_without_effect_is_wrong_usage_before_any_file(run: Run, media: Path) -> None:
    ended = run("caption", media / "picture.png", "--top-k", 3)
    assert (ended.code, ended.out) == (2, "")
