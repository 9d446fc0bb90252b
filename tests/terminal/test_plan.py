from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gemma_mlx.home import miniature_folder
from tests.terminal.conftest import ChangedModel, Run

RELEASED = Path(__file__).parents[1] / "golden" / "released_config.json"

PARTS = ("weights", "full_cache", "sliding_cache", "snapshot", "scratch", "drafter")


@pytest.fixture
def to_convert(tmp_path: Path) -> Path:
    """The released model before its weights are downloaded."""
    folder = tmp_path / "gemma-4-12B-it"
    folder.mkdir()
    shutil.copyfile(RELEASED, folder / "config.json")
    return folder


def test_json_has_every_part_and_they_add_up(run: Run) -> None:
    ended = run("plan", "--json")
    assert ended.code == 0
    found = json.loads(ended.out)
    assert sum(found[f"{part}_bytes"] for part in PARTS) == found["total_bytes"] <= found["limit_bytes"]
    assert (found["fits"], found["miniature"], found["context_tokens"]) == (True, True, 8192)
    assert found["largest_context_tokens"] == 8192


def test_a_checkpoint_still_to_be_converted_is_planned_from_its_config_alone(run: Run, to_convert: Path) -> None:
    ended = run("plan", "-m", to_convert, "--recipe", "4bit", "--memory", "16GB")
    assert ended.code == 0
    for line in ("weights 6.80 GB", "full layers' rows 2.68 GB 1.43 GB", "in 11.45 GB fits fits"):
        words = line.split()
        assert any(all(word in shown.split() for word in words) for shown in ended.out.splitlines()), line
    assert "with a 4-bit drafter" in ended.out


def test_what_does_not_fit_ends_with_1_and_says_how_much_is_missing(run: Run, to_convert: Path) -> None:
    ended = run("plan", "-m", to_convert, "--recipe", "bf16", "--memory", "16GB")
    assert ended.code == 1
    assert "GB short" in ended.out
    found = json.loads(run("plan", "-m", to_convert, "--recipe", "bf16", "--memory", "16GB", "--json").out)
    assert (found["fits"], found["largest_context_tokens"]) == (False, 0)
    assert found["missing_bytes"] == found["total_bytes"] + found["reserve_bytes"] - found["limit_bytes"]


def test_a_drafter_is_counted_where_one_lies_beside_or_is_named(run: Run, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(miniature_folder(), alone, ignore=shutil.ignore_patterns("drafter"))
    drafter = ["--drafter", miniature_folder() / "drafter"]
    arguments: list[list[object]] = [["-m", alone], ["-m", alone, *drafter], []]
    plain, named, beside = (json.loads(run("plan", "--json", *more).out) for more in arguments)
    assert plain["drafter_bytes"] == 0
    assert named["drafter_bytes"] == beside["drafter_bytes"] > 1_000_000
    assert named["total_bytes"] - plain["total_bytes"] == named["drafter_bytes"]


@pytest.mark.parametrize(("context", "tokens"), [("4096", 4096), ("4k", 4096), ("4,096", 4096), ("8K", 8192)])
def test_a_context_is_written_as_people_write_it(run: Run, context: str, tokens: int) -> None:
    assert json.loads(run("plan", "--context", context, "--json").out)["context_tokens"] == tokens


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--context", "0"], 2, "0"),
        (["--context", "much"], 2, "much"),
        (["--context", "9k"], 2, "8,192 positions"),
        (["--memory", "16MB"], 2, "16MB"),
        (["--recipe", "3bit"], 2, "3bit"),
        (["--kv-bits", "4"], 2, "8"),
        (["--drafter", "no/such"], 2, "no/such"),
        (["-m", "no/such"], 2, "no/such"),
    ],
)
def test_wrong_usage_is_told_in_one_line(run: Run, arguments: list[str], code: int, told: str) -> None:
    ended = run("plan", *arguments)
    assert (ended.code, ended.out) == (code, "")
    assert told in ended.err


def test_a_packed_folder_is_planned_as_it_would_be_packed_again(run: Run, tmp_path: Path) -> None:
    for recipe in ("4bit", "8bit"):
        assert run("convert", miniature_folder(), tmp_path / recipe, "--recipe", recipe).code == 0
    folders = (tmp_path / "4bit", tmp_path / "8bit", miniature_folder())
    planned = [json.loads(run("plan", "-m", folder, "--recipe", "8bit", "--json").out) for folder in folders]
    assert len({plan["weights_bytes"] for plan in planned}) == 1


@pytest.mark.parametrize("verb", [["ask", "Hello"], ["chat"]])
def test_a_context_that_does_not_fit_is_refused_before_loading(
    run: Run, changed_model: ChangedModel, verb: list[str]
) -> None:
    folder = changed_model("config.json", {"text_config.max_position_embeddings": 1 << 40})
    ended = run(*verb, "-m", folder, "--context", "999999k")
    assert (ended.code, ended.out) == (1, "")
    assert "are missing" in ended.errors[0]
    assert "would fit" in ended.errors[0]
