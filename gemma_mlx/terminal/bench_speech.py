"""gemma-mlx bench speech: error rates of transcripts of any length, beside other systems'."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gemma_mlx.errors import GemmaError, UsageError
from gemma_mlx.home import find_adapter
from gemma_mlx.terminal import options as flag
from gemma_mlx.terminal.bench_report import aligned
from gemma_mlx.terminal.failures import exit_codes, one_line, report, show_warnings_in_one_line
from gemma_mlx.terminal.loading import load_gemma
from gemma_mlx.terminal.output import Output, write_stdout

_FOLDERS_HELP = "Recordings with what is said in NAME.txt beside each, or folders of such folders."
_WRITTEN_HELP = "Compare transcripts as they are written: case and punctuation count."


def speech(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help=_FOLDERS_HELP)],
    model: flag.Model = None,
    adapter: flag.AdapterFolder = None,
    hypotheses: flag.Hypotheses = None,
    written: Annotated[bool, typer.Option("--as-written", help=_WRITTEN_HELP)] = False,
    max_tokens: flag.MaxTokens = flag.MAX_TOKENS,
    as_json: flag.Json = False,
    quiet: flag.Quiet = False,
) -> None:
    """Measure transcripts of recordings of any length: error rates, speed, and how much is doubted.

    \b
    gemma-mlx bench speech meetings/
    gemma-mlx bench speech meetings/ --hypotheses whisper=whisper.jsonl
    """
    with exit_codes(as_json):
        from benchmarks.error_rates import require_rapidfuzz
        from benchmarks.quality_sets import read_hypotheses, read_sets

        require_rapidfuzz()
        output = Output(quiet)
        show_warnings_in_one_line(output)
        sets = read_sets(folders)
        if pictures := [one.name for one in sets if one.kind != "audio"]:
            raise UsageError(f"{pictures[0]!r} holds pictures, which `bench quality --set` reads; name recordings")
        others = [read_hypotheses(named, sets) for named in hypotheses or []]
        found_adapter = find_adapter(adapter) if adapter is not None else None
        gemma = load_gemma(model, output, adapter=adapter)
        from benchmarks.speech import other_points, own_point, report_of

        failures: list[str] = []

        def told(name: str, failure: GemmaError | None) -> None:
            if failure is None:
                output.status(f"listening to {name} ...")
            else:
                failures.append(name)
                output.clear_status()
                report(failure, as_json, file=name)

        points: list[dict[str, Any]] = []
        for one in sets:
            points.append(own_point(gemma, one, max_tokens, spoken=not written, told=told))
            points += other_points(one, others, spoken=not written)
        output.clear_status()
        if not as_json:
            for line in aligned(_table(points)):
                output.note(line)
        write_stdout(one_line(report_of(gemma, found_adapter, points, spoken=not written)) + "\n")
        if failures:
            raise GemmaError("not all recordings could be transcribed; those named above are left out of the rates")


def _table(points: list[dict[str, Any]]) -> list[list[str]]:
    def rate(value: float | None) -> str:
        return "-" if value is None else f"{value:.2%}"

    head = ["set", "system", "files", "WER", "CER", "exact", "real-time factor", "segments", "doubted"]
    rows = [
        [
            point["set"],
            point["system"],
            str(point["texts"]),
            rate(point["word_error_rate"]),
            rate(point["character_error_rate"]),
            str(point["exact"]),
            f"{point['real_time_factor']:.3f}" if point.get("real_time_factor") else "-",
            str(point.get("segments", "-")),
            str(point.get("doubted", "-")),
        ]
        for point in points
    ]
    return [head, *rows]
