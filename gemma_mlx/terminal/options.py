"""The flags, each declared once: the same word means the same on every verb."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gemma_mlx.errors import UsageError

if TYPE_CHECKING:
    from gemma_mlx.decoding.sampling import Sampling
    from gemma_mlx.gemma import Gemma

MAX_TOKENS = 2048
DETAILS = (70, 140, 280, 560, 1120)
DraftMode = Literal["auto", "mtp", "lookup", "off"]


def _detail(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if text not in map(str, DETAILS):
        raise typer.BadParameter(f"{text} is not one of {', '.join(map(str, DETAILS))} or auto")
    return int(text)


def _schema(text: str) -> dict[str, Any]:
    """The JSON schema in the file called `text`."""
    from gemma_mlx.decoding.json_grammar import check_schema

    try:
        schema = json.loads(Path(text).read_bytes())
        check_schema(schema)
    except OSError as error:
        raise UsageError(f"cannot read the JSON schema {text}: {error.strerror or error}; check the path") from None
    except ValueError as error:
        raise UsageError(f"{text} is not JSON ({error}); write a JSON schema into it") from None
    except RecursionError:
        raise UsageError(f"{text} is nested too deeply; write a flatter JSON schema into it") from None
    if not isinstance(schema, dict):
        raise UsageError(f"{text} holds {json.dumps(schema)}, which admits all or nothing; write a JSON schema into it")
    return schema


def tokens(text: str) -> int:
    """A number of tokens: 262144, 262,144 or 256k."""
    found = re.fullmatch(r"([0-9]{1,9}|[0-9]{1,3}(?:,[0-9]{3})+)(k?)", text.strip().lower())
    count = int(found[1].replace(",", "")) if found else 0
    if not found or not count:
        raise typer.BadParameter(f"{text!r} is not a number of tokens: write 32768 or 32k")
    return count * (1024 if found[2] else 1)


def _kv_bits(value: int | None) -> int | None:
    if value not in (None, 8):
        raise typer.BadParameter(f"{value} is not 8, the only choice; leave it out for a cache that is not quantized")
    return value


_MODEL = "Folder of the model. Default: $GEMMA_MLX_MODEL, else the last one converted, else the miniature."
_TEMPERATURE = "How freely to draw tokens; 0 always takes the likeliest."
_MIN_P = "Draw only tokens at least this likely beside the likeliest, 0 to 1."
_PENALTY = "Above 1 avoids what was said before."
_DETAIL = (
    "Most tokens per picture or frame: 70, 140, 280, 560 or 1120; more shows smaller things, auto takes what it needs."
)
_VIDEO = "A video, without its sound; - reads it from stdin. Repeatable."
_SOUND = "Also listen to the sound track of each video."
_FRAMES = "Frames to take of each video, evenly spread, 1 to 60. Default: one a second, at most 32."
_JSON_SCHEMA = "Answer in JSON that follows the schema in FILE, always whole; thoughts come before. Nobody drafts then."
_CACHE = "Keep in FILE what is read of piped text and pictures, for the next question about them."
_DRAFTER = "Folder of the draft head. Default: the folder drafter in the model's, if there is one."
_DRAFT = "Who drafts tokens: the drafter (mtp), what was said before (lookup), both or nobody. Only speed changes."
_ADAPTER = "Answer with the LoRA or DoRA adapter in FOLDER, trained by mlx-lm or PEFT; needs mlx-lm."
_THINKING_BUDGET = "With --thinking: after N tokens of thought the answer follows, wherever the thought was."
_LOGPROBS = "With --json: for each place the N likeliest tokens."
_CONTEXT = "Most tokens of prompts and answers together, as 32768 or 32k; memory is planned for them."
_MEMORY = "Plan for a Mac with so much memory, as 16GB, instead of this machine."
_KV_BITS = "8 keeps the long-range cache at 8 bit, in about half the memory; answers may differ slightly."
_MODELS_OWN = "the model's"

Model = Annotated[str | None, typer.Option("-m", "--model", metavar="FOLDER", help=_MODEL)]
MaxTokens = Annotated[int, typer.Option("-n", "--max-tokens", min=1, metavar="N", help="Most tokens of an answer.")]
Temperature = Annotated[
    float | None,
    typer.Option("-t", "--temperature", min=0, metavar="T", help=_TEMPERATURE, show_default=_MODELS_OWN),
]
TopK = Annotated[
    int | None,
    typer.Option("--top-k", min=0, metavar="K", help="Draw from the K likeliest; 0: all.", show_default=_MODELS_OWN),
]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p", min=0, max=1, metavar="P", help="Draw from the likeliest that make up P.", show_default=_MODELS_OWN
    ),
]
MinP = Annotated[
    float | None, typer.Option("--min-p", min=0, max=1, metavar="P", help=_MIN_P, show_default=_MODELS_OWN)
]
RepetitionPenalty = Annotated[
    float | None, typer.Option("--repetition-penalty", min=0, metavar="X", help=_PENALTY, show_default=_MODELS_OWN)
]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, max=2**32 - 1, metavar="N", help="The same seed draws the same answer.")
]
System = Annotated[str | None, typer.Option("--system", metavar="TEXT", help="Instructions that stand before all.")]
Images = Annotated[
    list[str] | None, typer.Option("--image", metavar="FILE", help="A picture; - reads it from stdin. Repeatable.")
]
Sounds = Annotated[
    list[str] | None, typer.Option("--audio", metavar="FILE", help="A sound; - reads it from stdin. Repeatable.")
]
Videos = Annotated[list[str] | None, typer.Option("--video", metavar="FILE", help=_VIDEO)]
SoundTracks = Annotated[bool, typer.Option("--sound", help=_SOUND)]
Frames = Annotated[int | None, typer.Option("--frames", min=1, max=60, metavar="N", help=_FRAMES)]
Detail = Annotated[
    Any,
    typer.Option("--detail", parser=_detail, metavar="TOKENS", help=_DETAIL, show_default="the model's; 70 for frames"),
]
"""An int, "auto" or None."""
JsonSchema = Annotated[Any, typer.Option("--json-schema", parser=_schema, metavar="FILE", help=_JSON_SCHEMA)]
"""A dict or None."""
DrafterFolder = Annotated[str | None, typer.Option("--drafter", metavar="FOLDER", help=_DRAFTER)]
AdapterFolder = Annotated[str | None, typer.Option("--adapter", metavar="FOLDER", help=_ADAPTER)]
Draft = Annotated[DraftMode, typer.Option("--draft", help=_DRAFT)]
Thinking = Annotated[bool, typer.Option("--thinking", help="Think first; thoughts go to stderr.")]
ThinkingBudget = Annotated[
    int | None, typer.Option("--thinking-budget", min=1, metavar="N", help=_THINKING_BUDGET, show_default="no limit")
]
Cache = Annotated[Path | None, typer.Option("--cache", metavar="FILE", help=_CACHE)]
_HYPOTHESES = "Score another system's texts too: JSON Lines with file and text, or a folder of NAME.txt. Repeatable."
Hypotheses = Annotated[list[str] | None, typer.Option("--hypotheses", metavar="NAME=FILE", help=_HYPOTHESES)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on one line, with all figures.")]
Logprobs = Annotated[int | None, typer.Option("--logprobs", min=1, max=1000, metavar="N", help=_LOGPROBS)]
Context = Annotated[
    int | None,
    typer.Option("--context", parser=tokens, metavar="TOKENS", help=_CONTEXT, show_default="the most that fit"),
]
PlannedContext = Annotated[
    int | None,
    typer.Option("--context", parser=tokens, metavar="TOKENS", help=_CONTEXT, show_default="all that the model has"),
]
Memory = Annotated[str | None, typer.Option("--memory", metavar="SIZE", help=_MEMORY, show_default="this machine")]
KvBits = Annotated[int | None, typer.Option("--kv-bits", callback=_kv_bits, metavar="8", help=_KV_BITS)]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the last chat.")]
_SESSION = "Go on with the chat called NAME, or begin one of that name."
SessionName = Annotated[str | None, typer.Option("--session", metavar="NAME", help=_SESSION)]
NoSave = Annotated[bool, typer.Option("--no-save", help="Write nothing of the chat to the disk.")]
Plain = Annotated[bool, typer.Option("--plain", help="Lines of plain text also on a terminal, as with NO_COLOR.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Nothing on stderr but what must be known.")]


@dataclass(frozen=True)
class Drawing:
    """How to draw tokens: what was asked for on the command line, None where nothing was."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        from gemma_mlx.decoding.sampling import Sampling

        Sampling(**{name: value for name, value in vars(self).items() if value is not None})  # checks the ranges
        if self.temperature == 0:
            self._refuse_without_effect("--temperature 0")

    def sampling(self, gemma: Gemma) -> Sampling:
        """The checkpoint's sampling with what was asked for. UsageError for a value out of range or of no effect."""
        sampling = gemma.sampling(**vars(self))
        if sampling.temperature == 0:
            self._refuse_without_effect(f"the greedy decoding that {gemma.name} asks for")
        return sampling

    def _refuse_without_effect(self, greedy: str) -> None:
        filters = {"--top-k": self.top_k, "--top-p": self.top_p, "--min-p": self.min_p, "--seed": self.seed}
        if given := [flag for flag, value in filters.items() if value is not None]:
            raise UsageError(f"{given[0]} has no effect with {greedy}; leave it out or set -t above 0")


def check_flags(
    *, as_json: bool = False, logprobs: int | None = None, detail: int | str | None = None, pictures: bool = True
) -> None:
    """UsageError for a flag that would do nothing."""
    if logprobs and not as_json:
        raise UsageError("--logprobs has no effect without --json; add it")
    if detail is not None and not pictures:
        raise UsageError("--detail has no effect without a picture; add --image or --video FILE")


def check_video_flags(videos: bool, sound: bool, frames: int | None, remedy: str = "add --video FILE") -> None:
    """UsageError for a flag about videos where there is none."""
    if not videos and (sound or frames is not None):
        raise UsageError(f"{'--sound' if sound else '--frames'} has no effect without a video; {remedy}")


def thinking_within(budget: int | None, thinking: bool) -> bool | int:
    """What `Gemma.stream` takes as `thinking`. UsageError for a budget of thoughts that nobody has."""
    if budget is None:
        return thinking
    if not thinking:
        raise UsageError("--thinking-budget has no effect without --thinking; add it")
    return budget


def drafting_under(schema: object, draft: DraftMode, drafter: str | None) -> DraftMode:
    """Who may draft: nobody where a JSON schema is followed. UsageError where somebody was asked to."""
    if schema is None:
        return draft
    if draft in ("mtp", "lookup") or drafter is not None:
        asked = f"--draft {draft}" if drafter is None else "--drafter"
        raise UsageError(f"{asked} has no effect with --json-schema, under which nobody drafts; leave one of them out")
    return "off"
