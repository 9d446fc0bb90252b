from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import feedback
from benchmarks.feedback import calibrations, dealt, table
from benchmarks.prompts import Prompt
from convert.calibration import default_exchanges


def test_no_prompt_is_asked_that_was_calibrated_on() -> None:
    prompts = [Prompt(kind, f"{kind} {number}", answer="5") for kind in ("talk", "sums") for number in range(90)]
    judged, others = dealt(prompts)
    assert (len(judged), len(others)) == (2 * 64, 2 * 24)
    assert not {one.text for one in judged} & {one.text for one in others}


def test_thirds_are_disjoint_and_have_all_kinds() -> None:
    kinds = ("talk", "dialogues")
    prompts = [Prompt(kind, f"{kind} {number}", answer="5") for kind in kinds for number in range(24)]
    found = dict(calibrations(prompts))
    thirds = [{one.digest for one in found[name].samples} for name in ("first", "second", "third")]  # type: ignore[union-attr]
    assert [len(third) for third in thirds] == [16, 16, 16]
    assert len(set.union(*thirds)) == 48
    sizes = {name: len(one.samples) for name, one in found.items() if one is not None}
    assert sizes["first, one of each kind"] == 2
    assert sizes["first, dialogues alone"] == 8
    assert [one.digest for one in found["first, blocks of 128"].samples] == [  # type: ignore[union-attr]
        one.digest
        for one in found["first"].samples  # type: ignore[union-attr]
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("What is 2 + 3?", r"line 1 .* has no answer"),
        ('{"text": "What is 2 + 3?", "answer": "5"}', "there are 1 prompts of the kind text; write 88"),
    ],
)
def test_prompts_that_cannot_be_used_are_named(
    text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(text + "\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["feedback", str(prompts), str(tmp_path / "result.json")])
    with pytest.raises(SystemExit, match=told):
        feedback.main()
    assert not (tmp_path / "result.json").exists()


def test_a_stopped_run_goes_on_and_the_table_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exchanges = default_exchanges(miniature=True)[:5]
    lines = [{"messages": list(one.messages), "answer": one.answer} for one in exchanges]
    prompts, result = tmp_path / "prompts.jsonl", tmp_path / "result.json"
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    monkeypatch.setattr(feedback, "SETS", 2)
    monkeypatch.setattr(feedback, "JUDGED", 2)
    monkeypatch.setattr(feedback, "CALIBRATION", 3)
    monkeypatch.setattr(feedback, "RECIPE_NAMES", ("4bit",))
    few = list(calibrations([Prompt("dialogues", "Hello", answer="Hi")] * 3))[:2]
    monkeypatch.setattr(feedback, "calibrations", lambda prompts: few)
    monkeypatch.setattr(sys, "argv", ["feedback", str(prompts), str(result)])
    feedback.main()
    assert len(capsys.readouterr().err.splitlines()) == 2
    report = json.loads(result.read_text(encoding="utf-8"))
    plain, fed = report["points"]
    assert (plain["calibration_tokens"], plain["relative_output_error"]) == (0, 0)
    assert fed["bits_per_weight"] == plain["bits_per_weight"]
    assert 0 < fed["relative_output_error"] < fed["plain_relative_output_error"]
    assert fed["sets"] != plain["sets"]
    report["points"] = report["points"][:1]
    result.write_text(json.dumps(report), encoding="utf-8")
    feedback.main()
    printed = capsys.readouterr()
    assert printed.err.splitlines() == ["4bit, calibration: first"]
    assert json.loads(result.read_text(encoding="utf-8"))["points"] == [plain, fed]
    [row] = [line for line in printed.out.splitlines() if "| first |" in line]
    means = [sum(one["kl_mean"] for one in point["sets"]) / 2 for point in (plain, fed)]
    assert f"| {1000 * means[1]:.4g} | {1000 * (means[0] - means[1]):+.2g} +- " in row


def test_the_average_of_three_calibrations_is_taken_set_by_set() -> None:
    def point(name: str, *kl: float) -> dict[str, object]:
        figures = [{"kl_mean": one, "kl_median": one, "top1_agreement": 1.0} for one in kl]
        facts = {"calibration_tokens": 10, "relative_output_error": 0.1, "plain_relative_output_error": 0.2}
        return {"recipe": "4bit", "calibration": name, "sets": figures, **facts}

    points = [point("none", 0.004, 0.006), point("first", 0.001, 0.002), point("second", 0.002, 0.004)]
    averaged = table({"points": [*points, point("third", 0.003, 0.006)]}).splitlines()[-1]
    assert averaged.startswith("| 4bit | a third, averaged | 10 | 10.00 | 20.00 | 3 | +2 +- 0 |")
    assert "averaged" not in table({"points": points})
