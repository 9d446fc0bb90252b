from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gemma_mlx.home import miniature_folder, samples_folder
from tests.golden.cases import TINY
from tests.terminal.conftest import ChangedModel, Run

QUICK = ["bench", "drafting", "--depths", "0,2", "--runs", 1, "-n", 24]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """A picture and a text, of a kind each."""
    shutil.copy(samples_folder() / "scene-00.png", tmp_path / "picture.png")
    lines: list[dict[str, Any]] = [
        {"kind": "caption", "text": "Describe this image in one sentence.", "image": "picture.png"},
        {"kind": "dialogue", "text": "Say the alphabet."},
    ]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return file


def test_the_miniature_is_measured_shown_kept_and_drawn(run: Run, tmp_path: Path, prompts: Path) -> None:
    arguments = [*QUICK, "--prompts", prompts, "--output", tmp_path / "results"]
    ended = run(*arguments)
    assert ended.code == 0, ended.err
    assert ended.out.count("\n") == 1
    report = json.loads(ended.out)
    assert (report["model"], report["drafter"]) == (miniature_folder().name, "drafter")
    assert 0.05 < report["drafter_bytes"] / report["weights_bytes"] < 0.2
    for costs, kind in zip(report["costs"], ("caption", "dialogue"), strict=True):
        assert (costs["kind"], len(costs["verify_s"])) == (kind, 9)
        assert min(costs["draft_s"], *costs["verify_s"]) > 0

    points = report["points"]
    places = [(point["kind"], point["mode"], point["depth"]) for point in points]
    own = [("mtp", 0), ("mtp", 2), ("auto", None)]
    assert places == [(kind, mode, depth) for kind in ("caption", "dialogue") for mode, depth in own]
    for point in points:
        assert point["identical"]
        assert point["ratio_min"] <= point["ratio"] <= point["ratio_max"]
        assert point["plain_tps"] > 0
    plain, drafted, chosen = points[3:]
    assert plain["tokens_per_pass"] == 1
    assert plain["acceptance"] is None
    assert drafted["target_passes"] < 0.6 * plain["target_passes"]
    assert drafted["tokens"] == plain["tokens"] == chosen["tokens"] == 24
    assert drafted["accepted_tokens"] == sum(drafted["accepted_by_place"])
    assert drafted["acceptance_by_place"][0] >= drafted["acceptance_by_place"][1] > 0.5
    assert sum(chosen["rounds_by_depth"]) == chosen["rounds"] > 0

    assert "dialogue  auto: chosen" in ended.err
    assert "a toy" in ended.err
    assert json.loads((tmp_path / "results" / "drafting.json").read_text(encoding="utf-8")) == report
    with Image.open(tmp_path / "results" / "drafting.png") as picture:
        assert picture.size == (2200, 1060)
        assert len(set(picture.convert("RGB").resize((110, 53)).getdata())) > 20
    drawn = (tmp_path / "results" / "drafting.svg").read_text(encoding="utf-8")
    assert "caption" in drawn
    assert report["machine"] in drawn

    again = run(*arguments, "--json")
    assert (again.code, json.loads(again.out)["points"]) == (0, points)
    assert again.err.count("measured before") == 6
    assert "tokens a pass  same answers" not in again.err
    shown = run("bench", "drafting", "--from", tmp_path / "results" / "drafting.json", "--plot", tmp_path / "a" / "b")
    assert (shown.code, json.loads(shown.out)) == (0, report), shown.err
    assert (tmp_path / "a" / "b.svg").is_file()

    other = run(*arguments, "--draft", "mtp")
    assert (other.code, other.out) == (2, "")
    assert "was measured with draft 'auto'" in other.errors[0]


def test_without_a_drafter_drafts_are_looked_up(run: Run, tmp_path: Path, changed_model: ChangedModel) -> None:
    (tmp_path / "prompts.txt").write_text(
        "Tell me a story.\n\nred red red blue red red red blue red red. What is 2 + 3?", encoding="utf-8"
    )
    ended = run(*QUICK, "-m", changed_model("drafter", "none"), "--prompts", tmp_path / "prompts.txt")
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    assert report["drafter"] is None
    assert [(point["kind"], point["mode"]) for point in report["points"]] == [
        ("text", "lookup"),
        ("text", "lookup"),
        ("text", "auto"),
    ]
    assert report["points"][1]["drafted_tokens"] > 0
    assert "no drafter" in ended.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--depths", "9"], "from 0 to 8 tokens"),
        (["--depths", "-1,2"], "from 0 to 8 tokens"),
        (["--depths", "some"], "'some' is no list of numbers"),
        (["--dtype", "float16"], "'float16' is not one of bf16, float32"),
        (["-m", str(TINY), "--draft", "mtp"], "has no drafter"),
        (["--draft", "lookup", "--drafter", "here"], "--drafter has no effect with --draft lookup"),
        (["--drafter", "no/such"], "no/such"),
        (["--prompts", "no/such.txt"], "no/such.txt"),
        (["--from", "drafting.json", "--prompts", "mine.txt"], "--prompts has no effect with --from"),
        (["--from", "no/such.json"], "name a drafting.json of bench drafting"),
    ],
)
def test_wrong_usage_measures_nothing(run: Run, arguments: list[str], told: str) -> None:
    ended = run("bench", "drafting", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.errors[0]


@pytest.mark.parametrize("arguments", [["--draft", "off"], ["--runs", "0"], ["-n", "1"], ["--contexts", "4096"]])
def test_what_the_command_line_does_not_know_is_wrong_usage(run: Run, arguments: list[str]) -> None:
    ended = run("bench", "drafting", *arguments)
    assert (ended.code, ended.out) == (2, "")


def test_a_picture_that_cannot_be_read_names_its_line(run: Run, tmp_path: Path, media: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(f'{{"text": "Hi"}}\n\n{{"text": "What?", "image": "{media / "text.png"}"}}\n', encoding="utf-8")
    ended = run(*QUICK, "--prompts", file)
    assert (ended.code, ended.out) == (1, "")
    assert f"line 3 of {str(file)!r}" in ended.errors[0]


def test_a_memory_report_is_no_drafting_report(run: Run, tmp_path: Path) -> None:
    (tmp_path / "memory.json").write_text('{"benchmark": "memory", "points": []}', encoding="utf-8")
    ended = run("bench", "drafting", "--from", tmp_path / "memory.json")
    assert (ended.code, ended.out, len(ended.errors)) == (2, "", 1)
    assert "is no report of a drafting benchmark" in ended.errors[0]
