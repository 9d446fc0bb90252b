"""The README.md of a converted folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convert.conversion import convert_checkpoint, convert_source
from convert.model_card import CARD_FILE, model_card
from convert.packed_source import Repacking
from convert.recipes import Packing, Recipe, recipe_named
from convert.source import Source, read_source
from convert.tally import Tally
from tests.convert.small_source import write_source

REVISION = "707f0a3b8a3c7ad586ed01e27eafbad8a27dd0f7"
CHANGES = {"down_proj": Tally(0.0081, 1.0), "embed_tokens": Tally(0.0, 1.0)}


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return read_source(write_source(tmp_path / "source"))


def card(source: Source, recipe: Recipe, **changed: Any) -> str:
    facts: dict[str, Any] = {"weights_bytes": 6_740_000_000, "bits_per_weight": 4.504}
    return model_card(source, recipe, **(facts | {"changes": CHANGES, "repacking": None} | changed))


def front_matter(text: str) -> list[str]:
    opening, lines, _ = text.split("---\n", 2)
    assert opening == ""
    return lines.splitlines()


def test_front_matter_names_the_source_and_what_became_of_it(source: Source) -> None:
    known = replace(source, repository="google/gemma-4-12B-it", revision=REVISION)
    text = card(known, recipe_named("4bit"))
    assert front_matter(text) == [
        "license: apache-2.0",
        "library_name: mlx",
        "base_model: google/gemma-4-12B-it",
        "base_model_relation: quantized",
        "pipeline_tag: image-text-to-text",
        "tags:",
        *("- mlx", "- gemma4_unified", "- gemma-mlx", "- 4bit"),
    ]
    assert f"google/gemma-4-12B-it, revision `{REVISION}`, packed in MLX's layout." in text
    whole = front_matter(card(known, recipe_named("bf16")))
    assert "base_model_relation: quantized" not in whole
    assert "base_model: google/gemma-4-12B-it" in whole
    assert not any("base_model" in line for line in front_matter(card(source, recipe_named("4bit"))))


def test_figures_are_those_of_the_conversion(source: Source) -> None:
    text = card(source, recipe_named("8bit"))
    for row in (
        "| recipe | 8bit: 8 bits in groups of 64 |",
        "| weights | 6.74 GB |",
        "| bits per weight | 4.50 |",
        "| `down_proj` | 0.0900 |",
        "| `embed_tokens` | 0.0000 |",
    ):
        assert row in text.splitlines()
    assert "What packing changed" not in card(source, recipe_named("bf16"), changes={})


def test_every_packing_of_a_mixed_recipe_is_told(source: Source) -> None:
    others = {"a": Packing(4, 64), "b": Packing(8, 64), "c": Packing(4, 64)}
    told = "6 bits in groups of 64; 2 modules: 4 bits in groups of 64; 1 module: 8 bits in groups of 64"
    assert f"| recipe | mixed: {told} |" in card(source, Recipe("mixed", Packing(6, 64), others)).splitlines()
    assert "| recipe | qat-f32: 4 bits in groups of 32, scales in float32 |" in card(source, recipe_named("qat-f32"))


def test_a_packed_source_is_told(source: Source) -> None:
    text = card(source, recipe_named("4bit"), repacking=Repacking(copied=3, repacked=1))
    assert "The source was packed itself, and errors count from there." in text
    assert "3 copied as they are, 1 packed again" in text


def test_a_drafter_is_told_to_be_one(source: Source) -> None:
    text = card(replace(source, is_drafter=True), recipe_named("4bit"))
    assert "pipeline_tag: text-generation" in front_matter(text)
    assert "--drafter DRAFTER" in text


def test_the_folder_holds_it_with_the_licences_of_the_source_and_no_path(source: Source, tmp_path: Path) -> None:
    (source.folder / "LICENSE").write_text("of the source")
    (source.folder / "NOTICE").write_text("its notice")
    (source.folder / CARD_FILE).write_text("the source's own card")
    reports = [convert_checkpoint(source.folder, tmp_path / name, "4bit") for name in ("a", "b")]
    texts = [(tmp_path / name / CARD_FILE).read_text() for name in ("a", "b")]
    assert texts[0] == texts[1]
    assert str(tmp_path) not in texts[0]
    assert f"| `q_proj` | {reports[0].changes['q_proj'].relative_error:.4f} |" in texts[0]
    assert (tmp_path / "a/LICENSE").read_text() == "of the source"
    assert (tmp_path / "a/NOTICE").read_text() == "its notice"
    known = replace(source, repository="google/gemma-4-12B-it", revision=REVISION)
    convert_source(known, tmp_path / "c", recipe_named("4bit"))
    assert REVISION in (tmp_path / "c" / CARD_FILE).read_text()
