"""gemma-mlx caption: pictures and videos -> a text about each, or in each."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gemma_mlx.errors import UsageError
from gemma_mlx.terminal import options as flag
from gemma_mlx.terminal.batch import Batch
from gemma_mlx.terminal.failures import exit_codes, show_warnings_in_one_line
from gemma_mlx.terminal.input_files import PICTURE_AND_VIDEO_SUFFIXES, named_files
from gemma_mlx.terminal.loading import load_gemma
from gemma_mlx.terminal.output import Output
from gemma_mlx.terminal.sidecars import Sidecars

if TYPE_CHECKING:
    from gemma_mlx.answer import Reply
    from gemma_mlx.decoding.sampling import Sampling
    from gemma_mlx.gemma import Gemma
    from gemma_mlx.terminal.batch import Labelled
    from gemma_mlx.terminal.journal import Journal

Format = Literal["text", "jsonl", "txt-sidecar", "xmp"]

_FILES_HELP = "Pictures and videos, folders of them, and patterns in quotes; - reads one from stdin."
_PROMPT_HELP = 'What to ask about each. Default: "Describe this image in one sentence." (or video)'
_FORMAT_HELP = "On stdout as text or jsonl (as --json), or beside each picture in NAME.txt or NAME.xmp."
_OVERWRITE_HELP = "Write where a file is already; of another program's .xmp only the description changes."
_OCR_HELP = "Read the text in each picture; dense pages are read in strips at full resolution."
_RESUME_HELP = (
    "Keep each answer on this disk as it comes, and take from there what is known; a run that was stopped goes on, "
    "and shows all."
)


@dataclass(frozen=True)
class _Asked:
    """What is asked about each file, and how it is to be answered."""

    prompt: str | None
    ocr: bool
    schema: dict[str, Any] | None
    detail: int | Literal["auto"] | None
    frames: int | None
    sound: bool
    max_tokens: int
    thinking: bool | int
    logprobs: int
    draft: flag.DraftMode


def caption(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help=_FILES_HELP)],
    prompt: Annotated[str | None, typer.Option("--prompt", metavar="TEXT", help=_PROMPT_HELP)] = None,
    ocr: Annotated[bool, typer.Option("--ocr", help=_OCR_HELP)] = False,
    json_schema: flag.JsonSchema = None,
    format: Annotated[Format, typer.Option("--format", help=_FORMAT_HELP)] = "text",
    overwrite: Annotated[bool, typer.Option("--overwrite", help=_OVERWRITE_HELP)] = False,
    resume: Annotated[bool, typer.Option("--resume", help=_RESUME_HELP)] = False,
    model: flag.Model = None,
    max_tokens: flag.MaxTokens = flag.MAX_TOKENS,
    temperature: flag.Temperature = None,
    top_k: flag.TopK = None,
    top_p: flag.TopP = None,
    min_p: flag.MinP = None,
    repetition_penalty: flag.RepetitionPenalty = None,
    seed: flag.Seed = None,
    detail: flag.Detail = None,
    sound: flag.SoundTracks = False,
    frames: flag.Frames = None,
    draft: flag.Draft = "auto",
    drafter: flag.DrafterFolder = None,
    adapter: flag.AdapterFolder = None,
    thinking: flag.Thinking = False,
    thinking_budget: flag.ThinkingBudget = None,
    as_json: flag.Json = False,
    logprobs: flag.Logprobs = None,
    quiet: flag.Quiet = False,
) -> None:
    """Describe pictures and videos, or read them. Of several files, each line is the path, a tab and the text.

    \b
    gemma-mlx caption photo.jpg
    gemma-mlx caption --resume --format jsonl "holiday/**/*.jpg" > captions.jsonl
    gemma-mlx caption --format xmp --detail auto holiday
    gemma-mlx caption --ocr letter.png
    gemma-mlx caption --sound film.mp4
    """
    as_json = as_json or format == "jsonl"
    with exit_codes(as_json):
        flag.check_flags(as_json=as_json, logprobs=logprobs)
        if prompt is not None and not prompt.strip():
            raise UsageError("--prompt is empty; write what to ask about each, or leave it out")
        if ocr and json_schema is not None:
            raise UsageError("--ocr gives the text as it stands, --json-schema gives JSON; leave one of them out")
        if overwrite and format not in ("txt-sidecar", "xmp"):
            raise UsageError("--overwrite has no effect without --format txt-sidecar or xmp; leave it out")
        draft = flag.drafting_under(json_schema, draft, drafter)
        thinks = flag.thinking_within(thinking_budget, thinking)
        drawing = flag.Drawing(temperature, top_k, top_p, min_p, repetition_penalty, seed)
        named = named_files(files, PICTURE_AND_VIDEO_SUFFIXES)
        _check_films(named, sound, frames, ocr)
        output = Output(quiet)
        sidecars = Sidecars(named, format, overwrite) if format in ("txt-sidecar", "xmp") else None
        batch = Batch(
            *(named, output, max_tokens, as_json, bool(logprobs), thinking),
            named=True,
            sidecars=sidecars,
        )
        show_warnings_in_one_line(output)
        gemma = load_gemma(model, output, drafter=drafter, draft=draft, adapter=adapter)
        asked = _Asked(prompt, ocr, json_schema, detail, frames, sound, max_tokens, thinks, logprobs or 0, draft)
        sampling = drawing.sampling(gemma)
        journal = _journal(gemma, asked, sampling) if resume else None
        answer, prepare = _answering(gemma, asked, sampling)
        batch.run(answer, prepare, journal)


def _check_films(files: list[str], sound: bool, frames: int | None, ocr: bool) -> None:
    """UsageError for a flag about videos where there can be none; of a pipe, nobody knows yet what is in it."""
    if sound or frames is not None:
        from gemma_mlx.inputs.video import is_video

        flag.check_video_flags(
            not ocr and any(not os.path.isfile(file) or is_video(file) for file in files),  # noqa: PTH113  # of any text
            sound,
            frames,
            "name one" if not ocr else "--ocr reads pictures",
        )


def _answering(
    gemma: Gemma, asked: _Asked, sampling: Sampling
) -> tuple[Callable[[Any], Reply], Callable[[str | bytes], Labelled]]:
    """What answers about one file, and what prepares a file for it."""
    from gemma_mlx.tasks import captioning, reading
    from gemma_mlx.tasks.message import system_messages

    options: dict[str, Any] = {
        "sampling": sampling,
        "max_tokens": asked.max_tokens,
        "thinking": asked.thinking,
        "logprobs": asked.logprobs,
        "draft": asked.draft,
    }
    if asked.ocr:
        read = partial(reading.read_page, gemma, prompt=asked.prompt or reading.PROMPT, **options)
        return read, partial(reading.prepare_page, gemma, detail=asked.detail)
    if asked.schema is not None:  # it stands before the pictures, and one session reads it once for all of them
        grammar = gemma.json_grammar(asked.schema)
        gemma.constraint(
            grammar, asked.max_tokens, bool(asked.thinking)
        )  # what fits no answer is wrong usage, not 500 errors
        options |= {"grammar": grammar, "session": gemma.session()}
    before = system_messages(schema=asked.schema)
    return (
        partial(captioning.caption, gemma, prompt=asked.prompt, before=before, **options),
        partial(captioning.prepare_file, gemma, detail=asked.detail, frames=asked.frames, sound=asked.sound),
    )


def _journal(gemma: Gemma, asked: _Asked, sampling: Sampling) -> Journal:
    """Where answers to just this question, of just this model, are kept."""
    from gemma_mlx.answer import Reply
    from gemma_mlx.terminal.journal import Journal

    form = [field.name for field in fields(Reply)]  # what another version kept may lack some
    return Journal(
        {"form": form, "model": asdict(gemma.identity), "asked": asdict(asked), "sampling": asdict(sampling)}
    )
