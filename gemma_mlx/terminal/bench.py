"""gemma-mlx bench: what a run takes, measured. A verb per benchmark; each shows a table and ends with one JSON line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer

from gemma_mlx.errors import UsageError
from gemma_mlx.terminal import options as flag
from gemma_mlx.terminal.bench_drafting import DraftingRun, compare, finish_drafting
from gemma_mlx.terminal.bench_memory import MemoryRun, finish_memory
from gemma_mlx.terminal.bench_quality import Asked, QualityRun, comparison_of, finish_quality
from gemma_mlx.terminal.bench_report import place_to_draw, read_again, refuse_beside_from
from gemma_mlx.terminal.failures import INTERRUPTED, exit_codes, show_warnings_in_one_line
from gemma_mlx.terminal.output import Output

_DTYPES = {"bf16": "bfloat16", "float32": "float32"}
_LAYOUTS = ("shared", "plain")
_PEERS = ("mlx-lm", "mlx-vlm")
_CONTEXTS_HELP = "Contexts in tokens, as 4096,32k. Default: 4096 to 262144, as far as the model goes."
_LAYOUTS_HELP = "Of shared (ours) and plain (two tensors for K and V), those to measure."
_PREFILL_HELP = "Length of the prefill chunk: a number, 0 for none, or plan for what the plan chooses."
_SNAPSHOTS_HELP = "Snapshots of the sliding layers held meanwhile, as a conversation does."
_DTYPE_HELP = "Compute in bf16 or float32. Default: bf16 on a GPU, float32 on a CPU."
_PEER_HELP = "Also measure mlx-lm or mlx-vlm, where installed. Repeatable."
_NEEDLE_HELP = "Also hide a number in a long text and ask for it, in each context at each depth."
_DEPTHS = "0.1,0.3,0.5,0.7,0.9"
_DEPTHS_HELP = "Where --needle hides the number: from 0, the beginning, to 1, the end."
_OUTPUT_HELP = "Keep the points in DIR/memory.json, go on from them, and draw DIR/memory.png and .svg."
_FROM_HELP = "Show and draw a memory.json again, without measuring."
_MAX_DEPTH = 8
_DRAFT_MAX_TOKENS, _DRAFT_RUNS = 64, 3
_DRAFT_DEPTHS = "0,1,2,3,4,6,8"
_DRAFT_DEPTHS_HELP = "How many tokens to draft at a time, 0 to 8. The controller's own choice is always measured."
_PROMPTS_HELP = (
    "One prompt a line, or JSON Lines with text, kind, image and audio. Default: some of each kind that come along."
)
_DRAFT_HELP = "Who drafts. With auto: the drafter at each depth, and for the controller also what was said before."
_MAX_TOKENS_HELP = "Most tokens of an answer."
_RUNS_HELP = "How often each answer is made with and without drafts."
_DRAFTING_OUTPUT_HELP = "Keep the points in DIR/drafting.json, go on from them, and draw DIR/drafting.png and .svg."
_DRAFTING_FROM_HELP = "Show and draw a drafting.json again, without measuring."
_QUALITY_MAX_TOKENS = 128
_FOLDERS_HELP = "Folders to compare with --model, the reference: the same model, packed otherwise."
_QUALITY_PROMPTS_HELP = "Prompts as in bench drafting, perhaps with answers; else the reference's own are judged."
_SET_HELP = "Pictures or sounds with NAME.txt beside each, or a folder of such folders. Repeatable."
_BUDGETS_HELP = "Tokens per picture to measure, of 70, 140, 280, 560 and 1120. Default: the checkpoint's own."
_WRITTEN_HELP = "Compare transcripts as they are written: case and punctuation count."
_QUALITY_OUTPUT_HELP = "Keep all in DIR, with quality.json, go on from it, and draw DIR/quality.png and .svg."
_QUALITY_FROM_HELP = "Show and draw a quality.json again, without measuring."
_Number = TypeVar("_Number", int, float)


def memory(
    model: flag.Model = None,
    adapter: flag.AdapterFolder = None,
    contexts: Annotated[str | None, typer.Option("--contexts", metavar="N,N", help=_CONTEXTS_HELP)] = None,
    layouts: Annotated[
        str | None, typer.Option("--layouts", metavar="A,B", help=_LAYOUTS_HELP, show_default="both")
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", min=1, metavar="N", help="Tokens to decode.")] = 2,
    prefill_tokens: Annotated[str, typer.Option("--prefill-tokens", metavar="N", help=_PREFILL_HELP)] = "plan",
    snapshots: Annotated[int, typer.Option("--snapshots", min=0, max=8, metavar="N", help=_SNAPSHOTS_HELP)] = 0,
    dtype: Annotated[str | None, typer.Option("--dtype", metavar="TYPE", help=_DTYPE_HELP)] = None,
    kv_bits: flag.KvBits = None,
    ram: flag.Memory = None,
    peers: Annotated[list[str] | None, typer.Option("--peer", metavar="NAME", help=_PEER_HELP)] = None,
    needle: Annotated[bool, typer.Option("--needle", help=_NEEDLE_HELP)] = False,
    depths: Annotated[
        str | None, typer.Option("--depths", metavar="D,D", help=_DEPTHS_HELP, show_default=_DEPTHS)
    ] = None,
    output_folder: Annotated[Path | None, typer.Option("--output", metavar="DIR", help=_OUTPUT_HELP)] = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw FILE.png and FILE.svg.")] = None,
    again: Annotated[Path | None, typer.Option("--from", metavar="FILE", help=_FROM_HELP)] = None,
    as_json: flag.Json = False,
    quiet: flag.Quiet = False,
) -> None:
    """Measure memory against context, and compare it with the plan. A process of its own measures each point.

    \b
    gemma-mlx bench memory -m gemma-4bit --contexts 4096,32768 --output results
    gemma-mlx bench memory --from results/memory.json --plot picture
    """
    with exit_codes(as_json):
        shown = Output(quiet)
        show_warnings_in_one_line(shown)
        folder = output_folder if again is None else again.parent
        picture = place_to_draw(plot, folder, "memory")
        if again is not None:
            refuse_beside_from(
                {
                    "-m": model,
                    "--adapter": adapter,
                    "--contexts": contexts is not None,
                    "--layouts": layouts is not None,
                    "--dtype": dtype is not None,
                    "--kv-bits": kv_bits,
                    "--memory": ram is not None,
                    "--peer": peers,
                    "--needle": needle,
                    "--output": output_folder,
                }
            )
            from benchmarks.memory import FORM

            report = read_again(FORM, again, picture)
        else:
            from benchmarks.memory import Series
            from gemma_mlx.config import read_config
            from gemma_mlx.home import find_model
            from gemma_mlx.loader import runnable_adapter

            found = find_model(model)
            series = Series(
                folder=found,
                adapter=runnable_adapter(adapter, read_config(found)),
                contexts=_numbers("--contexts", contexts, flag.tokens) if contexts is not None else None,
                layouts=_layouts(layouts, kv_bits),
                peers=_named("--peer", peers or [], _PEERS),
                dtype=_DTYPES[_named("--dtype", [dtype], tuple(_DTYPES))[0]] if dtype else None,
                kv_bits=kv_bits,
                decode_tokens=tokens,
                prefill_tokens=None if prefill_tokens == "plan" else _whole("--prefill-tokens", prefill_tokens),
                snapshots=snapshots,
                memory=ram,
            )
            run = MemoryRun(series, shown, output_folder, picture, _depths(depths, needle))
            report = run()
        finish_memory(report, shown, picture, show_table=not as_json)
        if report.get("interrupted"):
            raise SystemExit(INTERRUPTED)
        if all("error" in point for point in report["points"]):
            raise SystemExit(1)


def drafting(
    model: flag.Model = None,
    drafter: flag.DrafterFolder = None,
    adapter: flag.AdapterFolder = None,
    prompts: Annotated[Path | None, typer.Option("--prompts", metavar="FILE", help=_PROMPTS_HELP)] = None,
    max_tokens: Annotated[
        int, typer.Option("-n", "--max-tokens", min=2, metavar="N", help=_MAX_TOKENS_HELP)
    ] = _DRAFT_MAX_TOKENS,
    draft: Annotated[Literal["auto", "mtp", "lookup"], typer.Option("--draft", help=_DRAFT_HELP)] = "auto",
    depths: Annotated[
        str | None, typer.Option("--depths", metavar="N,N", help=_DRAFT_DEPTHS_HELP, show_default=_DRAFT_DEPTHS)
    ] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, metavar="N", help=_RUNS_HELP)] = _DRAFT_RUNS,
    dtype: Annotated[str | None, typer.Option("--dtype", metavar="TYPE", help=_DTYPE_HELP)] = None,
    kv_bits: flag.KvBits = None,
    output_folder: Annotated[Path | None, typer.Option("--output", metavar="DIR", help=_DRAFTING_OUTPUT_HELP)] = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw FILE.png and FILE.svg.")] = None,
    again: Annotated[Path | None, typer.Option("--from", metavar="FILE", help=_DRAFTING_FROM_HELP)] = None,
    as_json: flag.Json = False,
    quiet: flag.Quiet = False,
) -> None:
    """Measure what drafting gains: the same greedy answers with and without, in turn.

    \b
    gemma-mlx bench drafting -m gemma-4bit --output results
    gemma-mlx bench drafting --prompts mine.txt --depths 2,4 --runs 5
    """
    with exit_codes(as_json):
        shown = Output(quiet)
        show_warnings_in_one_line(shown)
        folder = output_folder if again is None else again.parent
        picture = place_to_draw(plot, folder, "drafting")
        if again is not None:
            from benchmarks.drafting import FORM

            refuse_beside_from(
                {
                    "-m": model,
                    "--drafter": drafter,
                    "--adapter": adapter,
                    "--prompts": prompts,
                    "-n": max_tokens != _DRAFT_MAX_TOKENS,
                    "--draft": draft != "auto",
                    "--depths": depths is not None,
                    "--runs": runs != _DRAFT_RUNS,
                    "--dtype": dtype is not None,
                    "--kv-bits": kv_bits,
                    "--output": output_folder,
                }
            )
            report = read_again(FORM, again, picture)
        else:
            computing = _DTYPES[_named("--dtype", [dtype], tuple(_DTYPES))[0]] if dtype else None
            tried = sorted(set(_numbers("--depths", depths or _DRAFT_DEPTHS, int)))
            if not 0 <= tried[0] <= tried[-1] <= _MAX_DEPTH:
                raise UsageError(f"--depths {depths!r}: from 0 to {_MAX_DEPTH} tokens can be drafted at a time")
            comparison = compare(model, drafter, adapter, prompts, draft, tried, max_tokens, runs)
            run = DraftingRun(comparison, computing, kv_bits, shown, output_folder, picture)
            report = run()
        finish_drafting(report, shown, picture, show_table=not as_json)
        if report.get("interrupted"):
            raise SystemExit(INTERRUPTED)


def quality(
    folders: Annotated[list[Path] | None, typer.Argument(metavar="[FOLDER]...", help=_FOLDERS_HELP)] = None,
    model: flag.Model = None,
    adapter: flag.AdapterFolder = None,
    prompts: Annotated[Path | None, typer.Option("--prompts", metavar="FILE", help=_QUALITY_PROMPTS_HELP)] = None,
    sets: Annotated[list[Path] | None, typer.Option("--set", metavar="DIR", help=_SET_HELP)] = None,
    budgets: Annotated[str | None, typer.Option("--budgets", metavar="N,N", help=_BUDGETS_HELP)] = None,
    hypotheses: flag.Hypotheses = None,
    written: Annotated[bool, typer.Option("--as-written", help=_WRITTEN_HELP)] = False,
    max_tokens: Annotated[
        int, typer.Option("-n", "--max-tokens", min=1, metavar="N", help=_MAX_TOKENS_HELP)
    ] = _QUALITY_MAX_TOKENS,
    dtype: Annotated[str | None, typer.Option("--dtype", metavar="TYPE", help=_DTYPE_HELP)] = None,
    output_folder: Annotated[Path | None, typer.Option("--output", metavar="DIR", help=_QUALITY_OUTPUT_HELP)] = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw FILE.png and FILE.svg.")] = None,
    again: Annotated[Path | None, typer.Option("--from", metavar="FILE", help=_QUALITY_FROM_HELP)] = None,
    as_json: flag.Json = False,
    quiet: flag.Quiet = False,
) -> None:
    """Measure what packing costs: divergence from a reference, and error rates over sets of files.

    \b
    gemma-mlx bench quality -m gemma-bf16 gemma-8bit gemma-4bit --output results
    gemma-mlx bench quality -m gemma-4bit --set fleurs/de --hypotheses whisper=whisper.jsonl
    """
    with exit_codes(as_json):
        shown = Output(quiet)
        show_warnings_in_one_line(shown)
        folder = output_folder if again is None else again.parent
        picture = place_to_draw(plot, folder, "quality")
        if again is not None:
            from benchmarks.quality import FORM

            refuse_beside_from(
                {
                    "FOLDER": folders,
                    "-m": model,
                    "--adapter": adapter,
                    "--prompts": prompts,
                    "--set": sets,
                    "--budgets": budgets is not None,
                    "--hypotheses": hypotheses,
                    "--as-written": written,
                    "-n": max_tokens != _QUALITY_MAX_TOKENS,
                    "--dtype": dtype is not None,
                    "--output": output_folder,
                }
            )
            report = read_again(FORM, again, picture)
        else:
            computing = _DTYPES[_named("--dtype", [dtype], tuple(_DTYPES))[0]] if dtype else None
            tried = sorted(set(_numbers("--budgets", budgets, int))) if budgets is not None else []
            others, heard = folders or [], hypotheses or []
            asked = Asked(model, adapter, others, prompts, sets or [], tried, heard, written, max_tokens)
            comparison = comparison_of(asked)
            run = QualityRun(comparison, computing, shown, output_folder, picture)
            report = run()
        finish_quality(report, shown, picture, show_table=not as_json)
        if report.get("interrupted"):
            raise SystemExit(INTERRUPTED)
        if any("fingerprint" in point and point.get("failures") for point in report["points"]):
            raise SystemExit(1)


def _numbers(option: str, text: str, kind: Callable[[str], _Number]) -> list[_Number]:
    try:
        return [kind(part) for part in text.split(",")]
    except (ValueError, typer.BadParameter):
        raise UsageError(f"{option} {text!r} is no list of numbers; write them with commas between") from None


def _whole(option: str, text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"{option} is {text!r}; it must be a number, 0 or plan")
    return int(text)


def _depths(text: str | None, needle: bool) -> list[float]:
    if not needle:
        if text is not None:
            raise UsageError("--depths has no effect without --needle; add it")
        return []
    text = text or _DEPTHS
    found = _numbers("--depths", text, float)
    if not all(0 <= depth <= 1 for depth in found):
        raise UsageError(f"--depths {text!r}: a depth lies between 0, the beginning, and 1, the end")
    return sorted(set(found))


def _layouts(text: str | None, kv_bits: int | None) -> list[str]:
    if text is None:
        return ["shared"] if kv_bits else list(_LAYOUTS)
    return _named("--layouts", text.split(","), _LAYOUTS)


def _named(option: str, asked: list[str], known: tuple[str, ...]) -> list[str]:
    """`asked`, each once. UsageError for a name that is not known."""
    for name in asked:
        if name not in known:
            raise UsageError(f"{option} {name!r} is not one of {', '.join(known)}")
    return list(dict.fromkeys(asked))
