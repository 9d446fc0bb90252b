"""gemma-mlx ask: one question, one answer."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from gemma_mlx.errors import UsageError
from gemma_mlx.home import find_model
from gemma_mlx.terminal import options as flag
from gemma_mlx.terminal import stdin
from gemma_mlx.terminal.answering import as_object, cut_note, figures, prefill_progress, show_answer
from gemma_mlx.terminal.failures import INTERRUPTED, Interrupt, exit_codes, one_line, show_warnings_in_one_line
from gemma_mlx.terminal.loading import load_gemma
from gemma_mlx.terminal.output import Output, write_stdout

_PROMPT_HELP = "The question. Piped text goes before it; - or nothing takes the piped text alone."


@dataclass(frozen=True)
class Question:
    """What `ask` was asked, read and checked: no weight is loaded before this exists."""

    messages: list[dict[str, Any]]
    drawing: flag.Drawing
    max_tokens: int
    draft: flag.DraftMode
    thinking: bool
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
    audio: flag.Sounds = None,
    detail: flag.Detail = None,
    draft: flag.Draft = "auto",
    thinking: flag.Thinking = False,
    as_json: flag.Json = False,
    logprobs: flag.Logprobs = None,
    quiet: flag.Quiet = False,
) -> None:
    """Ask one question about text, pictures and sounds; the answer goes to stdout.

    \b
    gemma-mlx ask "What is on this receipt?" --image receipt.jpg --detail 1120
    git diff | gemma-mlx ask "Write a commit message for this."
    """
    with exit_codes(as_json):
        flag.check_flags(as_json=as_json, logprobs=logprobs, detail=detail, images=bool(image))
        drawing = flag.Drawing(temperature, top_k, top_p, min_p, repetition_penalty, seed)
        text = _text(prompt, image or [], audio or [])
        messages = _messages(text, system, image or [], audio or [], detail, find_model(model))
        question = Question(messages, drawing, max_tokens, draft, thinking, as_json, logprobs)
        _answer(question, model, Output(quiet))


def _text(prompt: str | None, images: list[str], sounds: list[str]) -> str:
    """What is asked: the piped text, then the prompt."""
    stdin.check_one_reader(("PROMPT", [prompt or ""]), ("--image", images), ("--audio", sounds))
    reads_media = stdin.STDIN in images or stdin.STDIN in sounds
    asked = "" if prompt in (None, stdin.STDIN) else prompt or ""
    piped = ""
    if prompt == stdin.STDIN or (stdin.is_piped() and not reads_media):
        piped = stdin.read_text().rstrip("\n")
    text = "\n\n".join(part for part in (piped, asked) if part.strip())
    if not text:
        raise UsageError("PROMPT is missing; write the question after `ask`, or pipe text into it")
    return text


def _messages(
    text: str, system: str | None, images: list[str], sounds: list[str], detail: int | None, folder: Path
) -> list[dict[str, Any]]:
    """The conversation so far, its media read and prepared for the model in `folder`."""
    from gemma_mlx.inputs.media import prepare_media
    from gemma_mlx.inputs.prompt import image_budget
    from gemma_mlx.tasks.message import user_message

    budget = detail or image_budget(folder / "processor_config.json")
    pictures = [prepare_media({"type": "image", "image": stdin.media_source(name)}, budget) for name in images]
    recordings = [prepare_media({"type": "audio", "audio": stdin.media_source(name)}, budget) for name in sounds]
    asking = user_message(text, pictures, recordings)
    return [*([{"role": "system", "content": system}] if system else []), asking]


def _answer(question: Question, model: str | None, output: Output) -> None:
    show_warnings_in_one_line(output)
    gemma = load_gemma(model, output)
    with Interrupt() as interrupt:
        answer = gemma.stream(
            question.messages,
            sampling=question.drawing.sampling(gemma),
            max_tokens=question.max_tokens,
            thinking=question.thinking,
            logprobs=question.logprobs or 0,
            draft=question.draft,
            progress=prefill_progress(output, interrupt),
        )
        for span in answer.prompt.spans:
            output.note(span.label)
        reply = show_answer(answer, output, interrupt, stream=not question.as_json)
    if question.as_json:
        write_stdout(one_line(as_object(reply, thinking=question.thinking, logprobs=bool(question.logprobs))) + "\n")
    if note := cut_note(reply, question.max_tokens):
        output.note(note)
    output.note(figures(reply))
    if reply.finish_reason == "interrupted":
        sys.exit(INTERRUPTED)
