"""gemma-mlx bench ocr: how much of written pictures comes out wrong, at each number of tokens per picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gemma_mlx.terminal import options as flag
from gemma_mlx.terminal.bench_quality import Asked, QualityRun, comparison_of, finish_quality
from gemma_mlx.terminal.failures import INTERRUPTED, exit_codes, show_warnings_in_one_line
from gemma_mlx.terminal.output import Output

BUDGETS = [70, 140, 280, 560, 1120]
_FOLDERS_HELP = "Pictures with what is written there in NAME.txt beside each, or folders of such folders."
_OUTPUT_HELP = "Keep all in DIR, with quality.json, and go on from it."


def ocr(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help=_FOLDERS_HELP)],
    model: flag.Model = None,
    adapter: flag.AdapterFolder = None,
    hypotheses: flag.Hypotheses = None,
    max_tokens: flag.MaxTokens = flag.MAX_TOKENS,
    output_folder: Annotated[Path | None, typer.Option("--output", metavar="DIR", help=_OUTPUT_HELP)] = None,
    as_json: flag.Json = False,
    quiet: flag.Quiet = False,
) -> None:
    """Measure reading: error rates with 70 to 1120 tokens per picture, every sign as it is written.

    The same as bench quality with one folder, --set and all --budgets.

    \b
    gemma-mlx bench ocr receipts/
    gemma-mlx bench ocr receipts/ --hypotheses tesseract=texts/
    """
    with exit_codes(as_json):
        output = Output(quiet)
        show_warnings_in_one_line(output)
        asked = Asked(model, adapter, [], None, folders, BUDGETS, hypotheses or [], False, max_tokens)
        report = QualityRun(comparison_of(asked), None, output, output_folder, None)()
        finish_quality(report, output, None, show_table=not as_json)
        if report.get("interrupted"):
            raise SystemExit(INTERRUPTED)
        if any(point.get("failures") for point in report["points"]):
            raise SystemExit(1)
