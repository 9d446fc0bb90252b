from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gemma_mlx.home import miniature_folder
from tests.golden.cases import TINY
from tests.terminal.conftest import Run


def made_up_report(folder: Path) -> Path:
    """A report as the full model might give it."""
    points: list[dict[str, Any]] = []
    for context in (4096, 32_768, 262_144):
        for layout, row_bytes in (("shared", 10_240), ("plain", 16_384)):
            active = 7_100_000_000 + row_bytes * context
            point = {"context_tokens": context, "layout": layout, "planned_bytes": int(active * 1.05)}
            points.append({**point, "active_bytes": active, "peak_bytes": int(active * 1.04)})
    points.append({"context_tokens": 262_144, "layout": "mlx-lm", "active_bytes": None, "error": "killed"})
    told = {
        "benchmark": "memory",
        "model": "gemma-4bit",
        "miniature": False,
        "machine": "Apple M2, 16 GB, macOS 15.5",
        "device": "gpu",
        "dtype": "bfloat16",
        "kv_bits": None,
        "mlx_version": "0.32.4",
        "gemma_mlx_version": "0.1.0",
        "mac_limits_bytes": {"16GB": 11_453_246_122, "18GB": 12_884_901_888, "24GB": 17_179_869_184},
        "points": points,
    }
    file = folder / "memory.json"
    file.write_text(json.dumps(told), encoding="utf-8")
    return file


def test_points_are_measured_shown_kept_and_drawn(run: Run, tmp_path: Path) -> None:
    arguments = ["bench", "memory", "-m", TINY, "--contexts", "2048,1024", "--prefill-tokens", 32, "--output", tmp_path]
    ended = run(*arguments)
    assert ended.code == 0, ended.err
    assert ended.out.count("\n") == 1
    report = json.loads(ended.out)
    places = [(point["context_tokens"], point["layout"]) for point in report["points"]]
    assert places == [(1024, "shared"), (1024, "plain"), (2048, "shared"), (2048, "plain")]
    for point in report["points"]:
        assert point["peak_bytes"] > point["active_bytes"] > 0
        assert point["planned_bytes"] > 0
        assert point["rows"] == "random"
    assert "2,048   plain" in ended.err
    assert json.loads((tmp_path / "memory.json").read_text(encoding="utf-8")) == report
    with Image.open(tmp_path / "memory.png") as picture:
        assert picture.size == (1800, 1120)
        assert len(set(picture.convert("RGB").resize((90, 56)).getdata())) > 20
    drawn = (tmp_path / "memory.svg").read_text(encoding="utf-8")
    assert "<svg" in drawn[:1000]
    assert "memory (GB)" in drawn
    assert "GB Mac" not in drawn  # beside a Mac's memory the toy's would lie on the axis

    again = run(*arguments, "--json")
    assert (again.code, json.loads(again.out)["points"]) == (0, report["points"])
    assert again.err.count("measured before") == 4
    assert "of plan" not in again.err

    other = run(*arguments, "--tokens", 3)
    assert (other.code, other.out) == (2, "")
    assert "decode_tokens" in other.errors[0]
    assert json.loads((tmp_path / "memory.json").read_text(encoding="utf-8")) == report


def test_a_report_is_drawn_again_without_measuring(run: Run, tmp_path: Path) -> None:
    report = made_up_report(tmp_path)
    ended = run("bench", "memory", "--from", report, "--plot", tmp_path / "sub" / "drawn.png")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["points"][0]["context_tokens"] == 4096
    assert "killed" not in ended.out.splitlines()[0][:100]
    assert "failed" in ended.err
    with Image.open(tmp_path / "sub" / "drawn.png") as picture:
        assert picture.size == (1800, 1120)
    drawn = (tmp_path / "sub" / "drawn.svg").read_text(encoding="utf-8")
    assert "gemma-4bit" in drawn
    assert "16 GB Mac" in drawn


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--contexts", "0"], "'0' is no list of numbers"),
        (["--contexts", "-5"], "'-5'"),
        (["--contexts", "9000"], "the model has 1 to 8,192"),
        (["--contexts", "many"], "'many' is no list of numbers"),
        (["--contexts", ""], "'' is no list of numbers"),
        (["--contexts", "100", "--prefill-tokens", "99"], "no room"),
        (["--prefill-tokens", "-1"], "'-1'"),
        (["--layouts", "round"], "'round' is not one of shared, plain"),
        (["--peer", "llama"], "'llama' is not one of mlx-lm, mlx-vlm"),
        (["--dtype", "float16"], "'float16' is not one of bf16, float32"),
        (["--kv-bits", "8", "--layouts", "plain"], "--layouts shared"),
        (["--memory", "lots"], "'lots'"),
        (["--needle", "--depths", "2"], "a depth lies between"),
        (["--depths", "0.5"], "--depths has no effect without --needle"),
        (["--from", "memory.json", "--peer", "mlx-lm"], "--peer has no effect with --from"),
        (["--needle", "--contexts", "60"], "--needle needs contexts of at least"),
        (["--from", "no/such.json"], "no/such.json"),
        (["-m", "no/such/model"], "no/such/model"),
    ],
)
def test_wrong_usage_measures_nothing(run: Run, arguments: list[str], told: str) -> None:
    ended = run("bench", "memory", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.errors[0]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"benchmark": "memory", "points": [1]}'])
def test_a_file_that_is_no_report_is_wrong_usage(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "memory.json").write_text(text, encoding="utf-8")
    ended = run("bench", "memory", "--from", tmp_path / "memory.json")
    assert (ended.code, ended.out, len(ended.errors)) == (2, "", 1)


def test_the_needle_says_that_the_miniature_is_a_toy(run: Run) -> None:
    ended = run(
        *["bench", "memory", "--contexts", 160, "--layouts", "shared", "--prefill-tokens", 0],
        *["--needle", "--depths", "0.1,0.9"],
    )
    assert ended.code == 0, ended.err
    cells = json.loads(ended.out)["needle"]
    assert [(cell["context_tokens"], cell["depth"]) for cell in cells] == [(160, 0.1), (160, 0.9)]
    assert "says nothing about Gemma 4 12B" in ended.err


def test_ctrl_c_prints_what_was_measured() -> None:
    contexts = [256, 512, 1024, 1536, 2048, 3072, 4096]  # it is stopped in the second, or a later one where it is slow
    command = [sys.executable, "-m", "gemma_mlx", "bench", "memory", "-m", str(TINY)]
    with subprocess.Popen(
        [
            *command,
            "--contexts",
            ",".join(map(str, contexts)),
            "--tokens",
            "200",
            "--prefill-tokens",
            "0",
            "--layouts",
            "shared",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if line.startswith("1 of 7"):
                running.send_signal(signal.SIGINT)
                break
        out, told = running.communicate(timeout=60)
    assert running.returncode == 130
    report = json.loads(out)
    measured = [point["context_tokens"] for point in report["points"]]
    assert measured == contexts[: len(measured)]
    assert 0 < len(measured) < len(contexts)
    assert not any("error" in point for point in report["points"])
    assert "interrupted" in told
    assert "Traceback" not in told


def test_the_verbs_help_names_its_benchmarks(run: Run) -> None:
    assert "memory" in run("bench", "--help").out
    assert "--contexts" in run("bench", "memory", "-h").out


def test_the_miniature_is_what_is_measured_when_no_model_is_named(run: Run) -> None:
    ended = run("bench", "memory", "--contexts", 64, "--layouts", "plain", "--prefill-tokens", 0, "-q")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["model"] == miniature_folder().name
    assert "a toy" in ended.err


def test_an_output_that_cannot_be_written_is_told_before_measuring(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = run("bench", "memory", "--contexts", 64, "--prefill-tokens", 0, "--output", tmp_path / "file")
    assert (ended.code, ended.out) == (1, "")
    assert "cannot write" in ended.errors[0]
    assert "1 of" not in ended.err


def test_without_matplotlib_a_plot_is_refused_with_how_to_get_it() -> None:
    code = (
        "import sys; from benchmarks.picture import require_matplotlib; sys.path[:] = []\n"
        "from gemma_mlx.errors import UsageError\n"
        "try: require_matplotlib()\nexcept UsageError as error: print(error)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'gemma-mlx[bench]'" in ended.stdout


def test_a_peer_that_is_not_installed_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlx_vlm", None)  # Python then finds no such module, installed or not
    ended = run("bench", "memory", "--peer", "mlx-vlm")
    assert (ended.code, ended.out, len(ended.errors)) == (2, "", 1)
    assert "pip install mlx-vlm" in ended.errors[0]
