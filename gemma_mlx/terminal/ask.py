"""gemma-mlx ask: one question, one answer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma_mlx.errors import GemmaError, UsageError
from gemma_mlx.home import find_model
from gemma_mlx.terminal import options as flag
from gemma_mlx.terminal import stdin
from gemma_mlx.terminal.answering import as_object, cut_note, figures, prefill_progress, show_answer
from gemma_mlx.terminal.failures import INTERRUPTED, Interrupt, exit_codes, one_line, show_warnings_in_one_line
from gemma_mlx.terminal.loading import load_gemma
from gemma_mlx.terminal.output import Output, write_stdout

if TYPE_CHECKING:
    from gemma_mlx.decoding.session import Session
    from gemma_mlx.gemma import Gemma
    from gemma_mlx.inputs.image import Budget

_PROMPT_HELP = "The question. Piped text goes before it; - or nothing takes the piped text alone."


@dataclass(frozen=True)
class _Files:
    """What is attached, by name; `-` is stdin."""

    images: list[str]
    videos: list[str]
    sounds: list[str]
    detail: Budget | None
    frames: int | None
    sound: bool
    """Whether the sound track of each video is attached as well."""

    @property
    def read_stdin(self) -> bool:
        return stdin.STDIN in [*self.images, *self.videos, *self.sounds]


@dataclass(frozen=True)
class Question:
    """What `ask` was asked, read and checked: no weight is loaded before this exists."""

    messages: list[dict[str, Any]]
    shared_messages: list[dict[str, Any]]
    """What stands before the question: another one about the same begins with it."""
    cache: Path | None
    drawing: flag.Drawing
    max_tokens: int
    draft: flag.DraftMode
    schema: dict[str, Any] | None
    thinking: bool | int
    as_json: bool
    logprobs: int | None


def ask(
    prompt: Annotated[str | None, typer.Argument(metavar="PROMPT", help=_PROMPT_HELP, show_default=False)] = None,
    model: flag.Model = None,
    max_tokens: flag.MaxTokens = flag.MAX_TOKENS,
    temperature: flag.Temperature = None,
    top_k: flag.TopK = None,
    top_p: flag.TopP = None,
    min_p: flag.MinP = None,
    repetition_penalty: flag.RepetitionPenalty = None,
    seed: flag.Seed = None,
    system: flag.System = None,
    image: flag.Images = None,
    video: flag.Videos = None,
    audio: flag.Sounds = None,
    sound: flag.SoundTracks = False,
    frames: flag.Frames = None,
    detail: flag.Detail = None,
    json_schema: flag.JsonSchema = None,
    cache: flag.Cache = None,
    draft: flag.Draft = "auto",
    drafter: flag.DrafterFolder = None,
    adapter: flag.AdapterFolder = None,
    thinking: flag.Thinking = False,
    thinking_budget: flag.ThinkingBudget = None,
    as_json: flag.Json = False,
    logprobs: flag.Logprobs = None,
    context: flag.Context = None,
    kv_bits: flag.KvBits = None,
    quiet: flag.Quiet = False,
) -> None:
    """Ask one question about text, pictures, video and sounds; the answer goes to stdout.

    \b
    gemma-mlx ask "What is on this receipt?" --image receipt.jpg --detail 1120
    git diff | gemma-mlx ask "Write a commit message for this."
    gemma-mlx ask "Who signed it?" --cache contract.cache < contract.txt
    """
    with exit_codes(as_json):
        flag.check_flags(as_json=as_json, logprobs=logprobs, detail=detail, pictures=bool(image or video))
        flag.check_video_flags(bool(video), sound, frames)
        draft = flag.drafting_under(json_schema, draft, drafter)
        thinks = flag.thinking_within(thinking_budget, thinking)
        drawing = flag.Drawing(temperature, top_k, top_p, min_p, repetition_penalty, seed)
        _check_cache(cache)
        files = _Files(image or [], video or [], audio or [], detail, frames, sound)
        piped, asked = _text(prompt, files)
        from gemma_mlx.tasks.message import system_messages

        before = system_messages(system, json_schema)
        messages, shared = _messages(piped, asked, before, files, find_model(model))
        question = Question(
            *(messages, shared, cache, drawing, max_tokens, draft, json_schema, thinks, as_json, logprobs)
        )
        load = partial(
            load_gemma, model, context_tokens=context, kv_bits=kv_bits, drafter=drafter, draft=draft, adapter=adapter
        )
        _answer(question, load, Output(quiet))


def _check_cache(cache: Path | None) -> None:
    """UsageError where no session can be saved, before anything is computed."""
    if cache is not None:
        from gemma_mlx.decoding.saved_session import check_target

        check_target(cache)


def _text(prompt: str | None, files: _Files) -> tuple[str, str]:
    """The piped text, and what is asked about it; at least one is not empty."""
    stdin.check_one_reader(
        ("PROMPT", [prompt or ""]), ("--image", files.images), ("--video", files.videos), ("--audio", files.sounds)
    )
    asked = "" if prompt in (None, stdin.STDIN) else prompt or ""
    piped = ""
    if prompt == stdin.STDIN or (stdin.is_piped() and not files.read_stdin):
        piped = stdin.read_text().rstrip("\n")
    if not piped.strip() and not asked.strip():
        raise UsageError("PROMPT is missing; write the question after `ask`, or pipe text into it")
    return piped, asked


def _messages(
    piped: str, asked: str, before: list[dict[str, Any]], files: _Files, folder: Path
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The messages with their media read and prepared for the model in `folder`; and those without the question.

    `before` are messages that stand before all.
    """
    from gemma_mlx.inputs.media import prepare_media
    from gemma_mlx.inputs.prompt import image_budget
    from gemma_mlx.inputs.video import MAX_FRAME_TOKENS
    from gemma_mlx.tasks.message import user_message

    budget = files.detail or image_budget(folder / "processor_config.json")
    films = [stdin.media_source(name) for name in files.videos]
    heard = [stdin.media_source(name) for name in files.sounds] + (films if files.sound else [])
    pictures = [prepare_media({"type": "image", "image": stdin.media_source(name)}, budget) for name in files.images]
    videos = [
        prepare_media(
            {"type": "video", "video": film, "frames": files.frames}, budget, files.detail or MAX_FRAME_TOKENS
        )
        for film in films
    ]
    recordings = [prepare_media({"type": "audio", "audio": source}, budget) for source in heard]
    text = "\n\n".join(part for part in (piped, asked) if part.strip())
    asks = user_message(text, pictures, recordings, videos)
    return [*before, asks], [*before, user_message(piped, pictures, videos=videos)]


def _answer(question: Question, load: Callable[[Output], Gemma], output: Output) -> None:
    show_warnings_in_one_line(output)
    gemma = load(output)
    session = _session(gemma, question.cache)
    resumed_tokens = session.offset if session else 0
    with Interrupt() as interrupt:
        answer = gemma.stream(
            question.messages,
            sampling=question.drawing.sampling(gemma),
            max_tokens=question.max_tokens,
            thinking=question.thinking,
            logprobs=question.logprobs or 0,
            session=session,
            shared_messages=question.shared_messages,
            draft=question.draft,
            grammar=gemma.json_grammar(question.schema) if question.schema is not None else None,
            progress=prefill_progress(output, interrupt),
        )
        for label in answer.prompt.labels:
            output.note(label)
        reply = show_answer(answer, output, interrupt, stream=not question.as_json)
    if question.as_json:
        write_stdout(
            one_line(as_object(reply, thinking=bool(question.thinking), logprobs=bool(question.logprobs))) + "\n"
        )
    if note := cut_note(reply, question.max_tokens):
        output.note(note)
    output.note(figures(reply))
    if question.cache is not None and session is not None:
        if resumed_tokens and not reply.reused_tokens:
            output.note(f"{question.cache.name} began in another way and was of no use; it is of this question now")
        _save(gemma, session, question.cache, output)
    if reply.finish_reason == "interrupted":
        sys.exit(INTERRUPTED)


def _session(gemma: Gemma, cache: Path | None) -> Session | None:
    """What earlier questions left in `cache`; a warning says why where it cannot be used."""
    if cache is None:
        return None
    return gemma.resume_session(cache) if cache.exists() else gemma.session()


def _save(gemma: Gemma, session: Session, cache: Path, output: Output) -> None:
    """The answer has been given: what fails from here on is told, and the old file is still there."""
    if not session.offset:
        return  # stopped in the middle of a layer
    output.status(f"saving {cache.name} ...")
    try:
        gemma.save_session(session, cache)
    except GemmaError as error:
        output.say(f"warning: {error}")
    output.clear_status()
