"""gemma-mlx bench: what a run takes, measured. A verb per benchmark; each shows a table and ends with one JSON line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from gemma_mlx.errors import UsageError
from gemma_mlx.terminal import options as flag
from gemma_mlx.terminal.bench_memory import MemoryRun, finish_memory
from gemma_mlx.terminal.bench_report import read_again, refuse_beside_from
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
_Number = TypeVar("_Number", int, float)


def memory(
    model: flag.Model = None,
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
        picture = plot or (folder / "memory" if folder else None)
        if again is not None:
            refuse_beside_from({"-m": model, "--contexts": contexts, "--peer": peers, "--output": output_folder})
            from benchmarks.memory import FORM

            report = read_again(FORM, again, picture)
        else:
            from benchmarks.memory import Series
            from gemma_mlx.home import find_model

            series = Series(
                folder=find_model(model),
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
