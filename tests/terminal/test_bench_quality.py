from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convert.conversion import convert_checkpoint
from gemma_mlx.home import miniature_folder, samples_folder
from gemma_mlx.tasks.captioning import PROMPT as CAPTION_PROMPT
from gemma_mlx.tasks.captioning import caption
from tests.golden.cases import TINY
from tests.terminal.conftest import Run

CAPTION = "A green triangle above an orange triangle."


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The miniature, a copy of it under another name, and packed at 8 and 4 bits."""
    folder = tmp_path_factory.mktemp("packed")
    found = {name: folder / name for name in ("bf16", "copy", "8bit", "4bit")}
    for name in ("bf16", "copy"):
        found[name].symlink_to(miniature_folder(), target_is_directory=True)
    for name in ("8bit", "4bit"):
        convert_checkpoint(miniature_folder(), found[name], name)
    return found


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Sample captions, one of them wrong, and a transcript; with a picture that is none."""
    table = json.loads((samples_folder() / "samples.json").read_text(encoding="utf-8"))["samples"]
    expected = {row["file"]: row["expected"] for row in table}
    for name, set_name in (("scene-00.png", "scenes"), ("scene-01.png", "scenes"), ("speech-00.flac", "speech")):
        folder = tmp_path / "sets" / set_name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(samples_folder() / name, folder)
        (folder / name).with_suffix(".txt").write_text(expected[name], encoding="utf-8")
    (tmp_path / "sets" / "scenes" / "scene-01.txt").write_text("Nothing like it.", encoding="utf-8")
    return tmp_path / "sets"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """A conversation with its answer, and two prompts without."""
    said = [
        {"role": "user", "content": "My name is Anna."},
        {"role": "assistant", "content": "Nice to meet you, Anna."},
    ]
    lines: list[dict[str, Any]] = [
        {"kind": "given", "messages": [*said, {"role": "user", "content": "What is my name?"}],
         "answer": "Your name is Anna."},
        {"kind": "own", "text": "Say the alphabet."},
        {"kind": "own", "text": CAPTION_PROMPT, "image": str(samples_folder() / "scene-00.png")},
    ]  # fmt: skip
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return file


def by_place(report: dict[str, Any]) -> dict[tuple[str, str, int | None], dict[str, Any]]:
    return {(point["folder"], point["name"], point["budget"]): point for point in report["points"]}


def test_packing_costs_more_the_fewer_the_bits(
    run: Run, prompts: Path, packed: dict[str, Path], tmp_path: Path
) -> None:
    others = [packed[name] for name in ("copy", "8bit", "4bit")]
    arguments = ["bench", "quality", "-m", packed["bf16"], *others, "--prompts", prompts, "--output", tmp_path / "out"]
    ended = run(*arguments, "-n", 40, "--dtype", "float32")
    assert ended.code == 0, ended.err
    assert ended.out.count("\n") == 1
    report = json.loads(ended.out)
    points = by_place(report)
    assert [*points] == [(folder, kind, None) for folder in packed for kind in ("given", "own", "all")]
    copy, eight, four = (points[name, "all", None] for name in ("copy", "8bit", "4bit"))
    assert 0 <= copy["kl_max"] < 1e-9
    assert copy["top1_agreement"] == 1.0
    assert 1e-9 < eight["kl_mean"] < four["kl_mean"] / 3 < 0.05
    assert eight["stored_bytes"] > four["stored_bytes"]
    for name in packed:
        whole, parts = points[name, "all", None], [points[name, kind, None] for kind in ("given", "own")]
        assert whole["positions"] == sum(part["positions"] for part in parts)
        assert whole["kl_max"] == max(part["kl_max"] for part in parts)
    assert points["bf16", "own", None]["answers_again"] == 2
    assert points["bf16", "given", None]["positions"] < 12
    assert report["given_answers"] == 1

    assert "same top token" in ended.err
    assert "a toy" in ended.err
    with Image.open(tmp_path / "out" / "quality.png") as picture:
        assert picture.size == (2200, 1060)
        assert len(set(picture.convert("RGB").resize((110, 53)).getdata())) > 20
    again = run(*arguments, "-n", 40, "--dtype", "float32", "--json")
    assert json.loads(again.out) == report
    assert again.err.count("measured before") == 4
    assert "same top token" not in again.err
    shown = run("bench", "quality", "--from", tmp_path / "out" / "quality.json", "--plot", tmp_path / "a" / "b.png")
    assert (shown.code, json.loads(shown.out)) == (0, report)
    assert "4bit" in (tmp_path / "a" / "b.svg").read_text(encoding="utf-8")
    other = run(*arguments, "-n", 41, "--dtype", "float32")
    assert (other.code, other.out) == (2, "")
    assert "was measured with max_tokens 40" in other.errors[0]


def test_perplexity_of_a_given_answer_is_that_of_its_score(run: Run, prompts: Path, packed: dict[str, Path]) -> None:
    from gemma_mlx import load

    line = json.loads(prompts.read_text(encoding="utf-8").splitlines()[0])
    ended = run("bench", "quality", "-m", packed["bf16"], "--prompts", prompts, "-n", 4)
    found = by_place(json.loads(ended.out))["bf16", "given", None]
    logprobs = load(packed["bf16"]).score(line["messages"], line["answer"]).logprobs
    mean = sum(logprobs) / len(logprobs)
    assert found["perplexity"] == pytest.approx(2.718281828459045**-mean, rel=1e-5)
    assert found["positions"] == len(logprobs)


def test_sets_are_answered_scored_and_gone_on_with(
    run: Run, sets: Path, packed: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sets / "scenes" / "broken.png").write_text("no picture", encoding="utf-8")
    (sets / "scenes" / "broken.txt").write_text("Nothing.", encoding="utf-8")
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"file": "scene-00.png", "text": CAPTION.upper()}), encoding="utf-8")
    arguments = ["bench", "quality", "-m", packed["4bit"], "--set", sets, "--budgets", "70,140", "-n", 24,
                 "--hypotheses", f"other={other}", "--output", tmp_path / "out"]  # fmt: skip

    real, asked = caption, []

    def interrupted(*given: Any, **options: Any) -> Any:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(given[1].name)
        return real(*given, **options)

    with monkeypatch.context() as patched:
        patched.setattr("benchmarks.quality_answers.caption", interrupted)
        first = run(*arguments)
    assert first.code == 130
    assert json.loads(first.out)["interrupted"]
    assert asked == ["broken.png", "scene-00.png"]
    [kept] = (tmp_path / "out").rglob("*.jsonl")
    assert [json.loads(line)["file"] for line in kept.read_text(encoding="utf-8").splitlines()] == ["scene-00.png"]
    with kept.open("a", encoding="utf-8") as lines:
        lines.write('{"file": "scene-01.png", "te')  # as a kill would leave it

    with monkeypatch.context() as patched:
        patched.setattr(
            "benchmarks.quality_answers.caption",
            lambda *given, **options: asked.append(given[1].name) or real(*given, **options),
        )
        ended = run(*arguments)
    assert ended.code == 1
    assert asked.count("scene-00.png") == 2  # once at each budget
    assert ended.err.count("broken.png") >= 2
    points = by_place(json.loads(ended.out))
    assert [*points] == [
        ("4bit", "scenes", 70),
        ("4bit", "scenes", 140),
        ("4bit", "speech", None),
        ("other", "scenes", None),
    ]
    scenes = points["4bit", "scenes", 70]
    assert (scenes["files"], scenes["texts"], scenes["failures"], scenes["exact"]) == (3, 2, ["broken.png"], 1)
    assert scenes["character_error_rate"] > 0.3
    assert scenes["image_tokens"] < points["4bit", "scenes", 140]["image_tokens"] <= 280
    assert scenes["same_as_reference"] == 2
    assert scenes["seconds"] > 0
    speech = points["4bit", "speech", None]
    assert (speech["word_error_rate"], speech["exact"], speech["scored"]) == (0.0, 1, "as spoken")
    assert speech["audio_tokens"] > 10
    theirs = points["other", "scenes", None]
    assert (theirs["texts"], theirs["exact"], theirs["failures"]) == (1, 0, ["broken.png", "scene-01.png"])
    assert theirs["character_error_rate"] > 0.5
    assert "failed: 4bit, scenes at 70 tokens: broken.png" in ended.err

    shutil.rmtree(sets / "speech")
    own = run(
        "bench",
        "quality",
        "-m",
        packed["4bit"],
        "--set",
        sets,
        "--hypotheses",
        f"ours={kept}",
        "--budgets",
        "70",
        "-n",
        24,
    )
    found = by_place(json.loads(own.out))
    for key in ("character_edits", "exact", "failures"):
        assert found["ours", "scenes", None][key] == found["4bit", "scenes", 70][key]


def test_a_folder_with_another_template_is_refused(
    run: Run, prompts: Path, packed: dict[str, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(packed["4bit"], other)
    template = other / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8") + "Well,", encoding="utf-8")
    ended = run("bench", "quality", "-m", packed["bf16"], other, "--prompts", prompts, "-n", 4)
    assert (ended.code, ended.out) == (1, "")
    assert "other makes other tokens of it than the reference" in ended.errors[0]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "there is nothing to compare"),
        (["no/such"], "no model folder"),
        ([str(miniature_folder())], "two folders are called 'miniature'"),
        ([str(TINY)], "compare folders of one model"),
        (["--prompts", "gone.txt"], "gone.txt"),
        (["--set", "gone"], "is no folder"),
        (["--set", "SETS", "--budgets", "70,71"], "--budgets 71: a picture takes at most"),
        (["--set", "SETS", "--budgets", "x"], "is no list of numbers"),
        (["--set", "SETS/speech", "--budgets", "70"], "--budgets has no effect"),
        (["--set", "SETS/scenes", "--as-written"], "--as-written has no effect"),
        (["--prompts", "PROMPTS", "--hypotheses", "a=b"], "--hypotheses has no effect"),
        (["--set", "SETS", "--hypotheses", "a=gone"], "there is no 'gone'"),
        (["--set", "SETS", "--hypotheses", "miniature=SETS/scenes"], "is the name of a folder"),
        (["--set", "SETS", "--dtype", "float16"], "'float16' is not one of"),
        (["--from", "quality.json", "--set", "SETS"], "--set has no effect with --from"),
        (["--from", "quality.json", "FOLDER"], "FOLDER has no effect with --from"),
        (["--from", "no/such.json"], "name a quality.json of bench quality"),
    ],
)
def test_wrong_usage_measures_nothing(run: Run, sets: Path, prompts: Path, arguments: list[str], told: str) -> None:
    given = [text.replace("SETS", str(sets)).replace("PROMPTS", str(prompts)) for text in arguments]
    model = [] if "--from" in given else ["-m", miniature_folder()]
    ended = run("bench", "quality", *model, *given)
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert told in ended.errors[0]


def test_a_prompt_whose_picture_cannot_be_read_names_its_line(run: Run, media: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(f'{{"text": "Hi"}}\n{{"text": "What?", "image": "{media / "text.png"}"}}\n', encoding="utf-8")
    ended = run("bench", "quality", "-m", miniature_folder(), "--prompts", file)
    assert (ended.code, ended.out) == (1, "")
    assert f"line 2 of {str(file)!r}" in ended.errors[0]
