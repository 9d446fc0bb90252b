"""The command `gemma-mlx`. Starting is cheap: what a verb needs is imported when the verb runs."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from gemma_mlx import __version__
from gemma_mlx.errors import GemmaError, UsageError
from gemma_mlx.terminal import bench, chats
from gemma_mlx.terminal.ask import ask
from gemma_mlx.terminal.bench_ocr import ocr
from gemma_mlx.terminal.bench_speech import speech
from gemma_mlx.terminal.caption import caption
from gemma_mlx.terminal.chat.verb import chat
from gemma_mlx.terminal.convert import convert
from gemma_mlx.terminal.demo import demo
from gemma_mlx.terminal.failures import exit_codes
from gemma_mlx.terminal.output import hold_closed_descriptors, use_utf8, write_stdout
from gemma_mlx.terminal.plan import plan
from gemma_mlx.terminal.safe import visible_line
from gemma_mlx.terminal.transcribe import transcribe

_ParserError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
"""What any wrong usage raises in the parser, which typer brings along and does not name."""


def _asks_for_json(args: list[str]) -> bool:
    """Whether a verb with these arguments prints JSON, and so tells in JSON what went wrong."""
    flags = args[: args.index("--")] if "--" in args else args
    return "--json" in flags or "--format=jsonl" in flags or ("--format", "jsonl") in pairwise(flags)


def _print_help(context: typer.Context, _option: object, asked: bool) -> None:
    if asked:
        write_stdout(context.get_help() + "\n")
        raise typer.Exit


class _Command(TyperCommand):
    """A verb whose --help meets a full disk and a closed pipe as answers do, and wrong usage under --json is JSON."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        as_json = _asks_for_json(args)
        try:
            return super().parse_args(ctx, args)
        except (_ParserError, GemmaError) as error:
            if not as_json:
                if isinstance(error, _ParserError):
                    error.message = visible_line(error.message)
                raise
            with exit_codes(as_json):
                if isinstance(error, GemmaError):
                    raise
                raise UsageError(f"{error.format_message().rstrip('.')}; see {ctx.command_path} --help") from None

    def get_help_option(self, ctx: Any) -> Any:
        return _through_write_stdout(super().get_help_option(ctx))


class _Group(TyperGroup):
    """The same for the --help of the whole."""

    def get_help_option(self, ctx: Any) -> Any:
        return _through_write_stdout(super().get_help_option(ctx))


def _through_write_stdout(help_option: Any) -> Any:
    if help_option is not None:
        help_option.callback = _print_help
    return help_option


app = typer.Typer(
    name="gemma-mlx",
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        write_stdout(f"gemma-mlx {__version__}\n")
        raise typer.Exit


@app.callback()
def describe(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Gemma 4 12B on a Mac with 16 GB: private, in a terminal, with eyes and ears.

    \b
    gemma-mlx demo                                      see everything work, with a toy model
    gemma-mlx plan --memory 16GB                        see what fits before anything is loaded
    gemma-mlx convert google/gemma-4-12B-it gemma-4bit  make the real model fit
    gemma-mlx chat                                      talk to it
    """


for verb in (ask, chat, transcribe, caption, plan, convert, demo):
    app.command(cls=_Command)(verb)

benchmarks = typer.Typer(cls=_Group, no_args_is_help=True, rich_markup_mode=None)
for benchmark in (bench.memory, bench.drafting, bench.quality, speech, ocr):
    benchmarks.command(cls=_Command)(benchmark)


@benchmarks.callback()
def describe_benchmarks() -> None:
    """Measure what a run takes: a table, a picture and one line of JSON."""


app.add_typer(benchmarks, name="bench")

kept_chats = typer.Typer(cls=_Group, invoke_without_command=True, rich_markup_mode=None)
kept_chats.callback()(chats.list_kept)
for on_chat in (chats.export, chats.delete):
    kept_chats.command(cls=_Command)(on_chat)
app.add_typer(kept_chats, name="chats")


def main() -> None:
    """Runs the command line; ends with SystemExit."""
    hold_closed_descriptors()
    use_utf8()
    with exit_codes():
        app(prog_name="gemma-mlx")
