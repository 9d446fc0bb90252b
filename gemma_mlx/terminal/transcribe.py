"""gemma-mlx transcribe: recordings of any length, or the microphone -> what is said, with times if wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from gemma_mlx.errors import UsageError
from gemma_mlx.terminal import options as flag
from gemma_mlx.terminal import stdin
from gemma_mlx.terminal.failures import exit_codes, show_warnings_in_one_line
from gemma_mlx.terminal.loading import load_gemma
from gemma_mlx.terminal.output import Output
from gemma_mlx.terminal.recordings import find_recordings
from gemma_mlx.terminal.transcribe_run import TranscribeRun, Writing

_FILES_HELP = "Recordings, videos with sound, and folders of them with all below; - reads one from stdin."
_LANGUAGE_HELP = 'The language spoken, as "German". Default: the model finds out.'
_TARGET_HELP = 'Translate into this language, as "English"; JSON has both texts.'
_VOCABULARY_HELP = "Names and words that may occur, spelled as you want them."
_FORMAT_HELP = "Plain text, subtitles (srt, vtt), a table (tsv), or one JSON document with times and doubts."
_FOLDER_HELP = "Write NAME.FORMAT for each recording into DIR, instead of to stdout."
_RESTART_HELP = "Begin anew, where an earlier run of the same was stopped."
_LIVE_HELP = "Listen to the microphone and write as you speak; Ctrl-C ends it."
_EVENTS_HELP = "Print events, one JSON object a line: started, segment, finished, failed."
Format = Literal["txt", "srt", "vtt", "json", "tsv"]


def transcribe(
    files: Annotated[list[str] | None, typer.Argument(metavar="FILE...", help=_FILES_HELP, show_default=False)] = None,
    language: Annotated[str | None, typer.Option("--language", metavar="NAME", help=_LANGUAGE_HELP)] = None,
    target: Annotated[str | None, typer.Option("--translate-to", metavar="NAME", help=_TARGET_HELP)] = None,
    vocabulary: Annotated[str | None, typer.Option("--prompt", metavar="WORDS", help=_VOCABULARY_HELP)] = None,
    format: Annotated[Format, typer.Option("--format", help=_FORMAT_HELP)] = "txt",
    folder: Annotated[Path | None, typer.Option("--output-dir", metavar="DIR", help=_FOLDER_HELP)] = None,
    restart: Annotated[bool, typer.Option("--restart", help=_RESTART_HELP)] = False,
    live: Annotated[bool, typer.Option("--live", help=_LIVE_HELP)] = False,
    model: flag.Model = None,
    max_tokens: flag.MaxTokens = flag.MAX_TOKENS,
    draft: flag.Draft = "auto",
    drafter: flag.DrafterFolder = None,
    adapter: flag.AdapterFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help=_EVENTS_HELP)] = False,
    logprobs: flag.Logprobs = None,
    quiet: flag.Quiet = False,
) -> None:
    """Write down what is said in recordings of any length. What was done is kept when it is stopped: run it again.

    \b
    gemma-mlx transcribe memo.m4a
    gemma-mlx transcribe talks/ --format srt --output-dir subtitles
    gemma-mlx transcribe --language German --translate-to English film.mp4
    """
    with exit_codes(as_json):
        _check(files, format, folder, live=live, restart=restart, as_json=as_json, logprobs=logprobs)
        from gemma_mlx.tasks.transcription import Wanted

        wanted = Wanted(language, target, vocabulary)
        recordings = [] if live else find_recordings(files or [], folder, format)
        output = Output(quiet)
        show_warnings_in_one_line(output)
        gemma = load_gemma(model, output, drafter=drafter, draft=draft, adapter=adapter)
        writing = Writing(format, as_json=as_json, to_stdout=folder is None and not as_json)
        run = TranscribeRun(gemma, wanted, writing, output, max_tokens, draft, logprobs or 0)
        if live:
            run.live()
        elif not run.files(recordings, restart=restart):
            raise SystemExit(1)


def _check(
    files: list[str] | None,
    format: Format,
    folder: Path | None,
    *,
    live: bool,
    restart: bool,
    as_json: bool,
    logprobs: int | None,
) -> None:
    """UsageError for what contradicts itself or would do nothing."""
    stdin.check_one_reader(("FILE", files or []))
    if logprobs and not as_json and format != "json":
        raise UsageError("--logprobs has no effect without --json or --format json; add one")
    if as_json and folder is None and format != "txt":
        raise UsageError(f"--format {format} has no effect with --json, which prints events; add --output-dir DIR")
    if live:
        for given, name in ((files, "FILE"), (folder, "--output-dir"), (restart, "--restart")):
            if given:
                raise UsageError(
                    f"{name} has no effect with --live, which writes what is heard to stdout; leave it out"
                )
    elif not files:
        raise UsageError("FILE is missing; name a recording, a folder, - for stdin, or use --live for the microphone")
