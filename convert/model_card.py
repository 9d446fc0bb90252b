"""The README.md of a converted folder, as Hugging Face shows it: what it was made of and how, and what that changed.

The same conversion writes the same text: no date, no duration, no path of this machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata

from convert.calibrated import Calibration
from convert.packed_source import Repacking
from convert.recipes import Packing, Recipe
from convert.source import Source
from convert.tally import Tally

CARD_FILE = "README.md"


def model_card(
    source: Source,
    recipe: Recipe,
    weights_bytes: int,
    bits_per_weight: float,
    changes: Mapping[str, Tally],
    repacking: Repacking | None,
    calibration: Calibration | None = None,
) -> str:
    """The card of `source` packed by `recipe`; `changes` are those of each kind of packed module, and `calibration` is
    what they were made on, if on anything."""
    kind = "drafter" if source.is_drafter else "model"
    name = source.repository or f"A {kind} of the Gemma 4 12B architecture"
    parts = (
        _front_matter(source, recipe),
        f"# {name.rpartition('/')[2]}, {recipe.name}, for MLX\n",
        _origin(name, source, recipe),
        _facts(recipe, weights_bytes, bits_per_weight, calibration),
        _changes(changes, repacking) if changes or repacking else "",
        _output_changes(changes, calibration) if calibration else "",
        _DRAFTER_USE if source.is_drafter else _USE,
        _LICENCE,
        f"Made with gemma-mlx {metadata.version('gemma-mlx')} and MLX {metadata.version('mlx')}.\n",
    )
    return "\n".join(part for part in parts if part)


def _front_matter(source: Source, recipe: Recipe) -> str:
    lines = ["license: apache-2.0", "library_name: mlx"]
    if source.repository is not None:
        lines.append(f"base_model: {source.repository}")
        if recipe.packing is not None and source.adapter is None:
            lines.append("base_model_relation: quantized")
    lines += [
        f"pipeline_tag: {'text-generation' if source.is_drafter else 'image-text-to-text'}",
        "tags:",
        *(f"- {tag}" for tag in ("mlx", "gemma4_unified", "gemma-mlx", recipe.name)),
    ]
    return "\n".join(["---", *lines, "---", ""])


def _origin(name: str, source: Source, recipe: Recipe) -> str:
    made = "packed" if recipe.packing is not None else "stored whole"
    at = f", revision `{source.revision}`" if source.revision is not None else ""
    fused = (
        f", with the adapter `{source.adapter.name}` (sha256 {source.adapter.digest}) in it" if source.adapter else ""
    )
    return f"{name}{at}{fused}, {made} in MLX's layout.\n"


def _facts(recipe: Recipe, weights_bytes: int, bits_per_weight: float, calibration: Calibration | None) -> str:
    rows = [
        ("recipe", f"{recipe.name}: {_forms(recipe)}"),
        ("weights", f"{weights_bytes / 1e9:.2f} GB" if weights_bytes >= 1e9 else f"{weights_bytes / 1e6:.1f} MB"),
        ("bits per weight", f"{bits_per_weight:.2f}"),
    ]
    if recipe.chosen_on:
        rows.append(("bits of each module", f"chosen by what packing it costs on {recipe.chosen_on}"))
    if calibration is not None:
        rows.append(("rounding of the layers", f"with error feedback, on {calibration} (digest {calibration.digest})"))
    return _table(("", ""), rows)


def _forms(recipe: Recipe) -> str:
    """How modules are packed: most of them, and how many otherwise."""
    if recipe.packing is None:
        return "bfloat16"
    counts = Counter(map(_form, recipe.overrides.values()))
    others = [f"{count} module{'s' if count > 1 else ''}: {form}" for form, count in sorted(counts.items())]
    return "; ".join([_form(recipe.packing), *others])


def _form(packing: Packing) -> str:
    scales = ", scales in float32" if packing.scale_dtype == "F32" else ""
    return f"{packing.bits} bits in groups of {packing.group_size}{scales}"


def _changes(changes: Mapping[str, Tally], repacking: Repacking | None) -> str:
    text = "## What packing changed\n\n"
    if changes:
        rows = [(f"`{kind}`", f"{tally.relative_error:.4f}") for kind, tally in changes.items()]
        text += "RMS of the change over RMS of the numbers, for each kind of module; all else is bfloat16.\n\n"
        text += _table(("modules", "relative error"), rows)
    if repacking is not None:
        text += f"\nThe source was packed itself, and errors count from there. {str(repacking).capitalize()}.\n"
    return text


def _output_changes(changes: Mapping[str, Tally], calibration: Calibration) -> str:
    rows = [
        (f"`{kind}`", f"{tally.relative_output_error:.4f}", f"{tally.plain_relative_output_error:.4f}")
        for kind, tally in changes.items()
        if tally.output_sum
    ]
    text = (
        "The layers were rounded with error feedback, as GPTQ does it: numbers change more than they had to, so that "
        f"outputs change less on {calibration}; on other text they may change otherwise. RMS of the change over RMS of "
        f"the outputs, by second moments of at most {calibration.block_columns:,} inputs together:\n\n"
    )
    return text + _table(("outputs of", "relative error", "had each number been rounded for itself"), rows)


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    rule = ("---", *("---:" for _ in heads[1:]))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [heads, rule, *rows])


_USE = """## Use

With FOLDER for where this lies:

```sh
gemma-mlx chat --model FOLDER
gemma-mlx ask "What is in the picture?" --image picture.png --model FOLDER
mlx_vlm.generate --model FOLDER --prompt "What is in the picture?" --image picture.png
```
"""
_DRAFTER_USE = """## Use

It drafts for the model that it was made for, and makes its answers faster, not others:

```sh
gemma-mlx chat --model FOLDER --drafter DRAFTER
mlx_vlm.generate --model FOLDER --draft-model DRAFTER --draft-kind mtp --prompt "Hello"
```

gemma-mlx finds it by itself as the folder `drafter` in the model's folder.
"""
_LICENCE = """## Licence

Gemma 4 is by Google DeepMind, under the Apache License 2.0; packing its numbers changes nothing about that. LICENSE and
NOTICE files of the source, where it had any, lie beside this one.
"""
