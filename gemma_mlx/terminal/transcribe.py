"""gemma-mlx transcribe: clips of speech -> text."""

from __future__ import annotations

from typing import Annotated

import typer

from gemma_mlx.terminal import options as flag
from gemma_mlx.terminal.batch import Batch
from gemma_mlx.terminal.failures import exit_codes, show_warnings_in_one_line
from gemma_mlx.terminal.loading import load_gemma
from gemma_mlx.terminal.output import Output

_FILES_HELP = "Sounds of at most 30 s each; - reads one from stdin."
_LANGUAGE_HELP = 'The language spoken, as "German". Default: the model finds out.'


def transcribe(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help=_FILES_HELP)],
    language: Annotated[str | None, typer.Option("--language", metavar="NAME", help=_LANGUAGE_HELP)] = None,
    model: flag.Model = None,
    max_tokens: flag.MaxTokens = flag.MAX_TOKENS,
    draft: flag.Draft = "auto",
    drafter: flag.DrafterFolder = None,
    adapter: flag.AdapterFolder = None,
    as_json: flag.Json = False,
    logprobs: flag.Logprobs = None,
    quiet: flag.Quiet = False,
) -> None:
    """Write down what is said in short clips, one transcript per file, always the likeliest.

    \b
    gemma-mlx transcribe memo.wav
    gemma-mlx transcribe --language German *.flac > notes.txt
    """
    with exit_codes(as_json):
        flag.check_flags(as_json=as_json, logprobs=logprobs)
        output = Output(quiet)
        batch = Batch(files, "audio", output, max_tokens, as_json=as_json, logprobs=bool(logprobs))
        show_warnings_in_one_line(output)
        gemma = load_gemma(model, output, drafter=drafter, draft=draft, adapter=adapter)
        from gemma_mlx.tasks import transcription

        batch.run(
            gemma,
            lambda sound: transcription.transcribe(
                gemma, sound, language, max_tokens=max_tokens, logprobs=logprobs or 0, draft=draft
            ),
        )
