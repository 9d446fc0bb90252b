from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gemma_mlx.errors import GemmaError, UsageError
from gemma_mlx.gemma import Gemma
from gemma_mlx.tasks.exported_chat import export_chat
from gemma_mlx.tasks.turn import Settings, Turn, attached


@pytest.fixture
def turns(picture: Path) -> list[Turn]:
    shown = attached("image", picture, "my [photo](x)\n# 1.png", 70)
    heard = attached("audio", (np.linspace(-1, 1, 5000, dtype=np.float32), 16_000), "recording", 280)
    figures = {"model": "gemma_4bit", "generated_tokens": 3, "finish_reason": "stop"}
    asked = {"settings": Settings("Be brief."), "asked_at": "2026-11-20T09:30:00+01:00", "figures": figures}
    return [
        Turn("What is *this*?", [heard, shown], answer="A circle.", thought="Look: </details> <b>", **asked),  # type: ignore[arg-type]
        Turn("Again?", [shown], answer="Yes.", **asked),  # type: ignore[arg-type]
    ]


def test_markdown_has_roles_media_beside_it_and_folded_thoughts(
    turns: list[Turn], tmp_path: Path, picture: Path
) -> None:
    path = tmp_path / "trip to Rome.md"
    assert export_chat("trip_to Rome", turns, path) == []
    assert sorted(file.name for file in (tmp_path / "trip to Rome.md.media").iterdir()) == ["1.wav", "2.png"]
    assert (tmp_path / "trip to Rome.md.media" / "2.png").read_bytes() == picture.read_bytes()
    label = r"my \[photo\]\(x\) \# 1.png 320x240 -\> 63 tokens"
    image = f"![{label}](trip%20to%20Rome.md.media/2.png)"
    assert (
        path.read_text(encoding="utf-8")
        == f"""\
# trip\\_to Rome

## System

Be brief.

## User

2026-11-20T09:30:00+01:00

[recording 0.3 s -\\> 8 tokens](trip%20to%20Rome.md.media/1.wav)

{image}

What is *this*?

## gemma\\_4bit

<details><summary>Thoughts</summary>

Look: &lt;/details&gt; &lt;b&gt;

</details>

A circle.

## User

2026-11-20T09:30:00+01:00

{image}

Again?

## gemma\\_4bit

Yes.
"""
    )


def test_json_holds_messages_that_the_model_takes_as_they_are(
    turns: list[Turn], tmp_path: Path, miniature: Gemma
) -> None:
    """The same media to the last bit, and no file is needed."""
    export_chat("trip", turns, tmp_path / "trip.json")
    assert list(tmp_path.iterdir()) == [tmp_path / "trip.json"]
    found = json.loads((tmp_path / "trip.json").read_text(encoding="utf-8"))
    [system, first, answer, second, _] = miniature.prepare(found["messages"], 70)
    assert system == {"role": "system", "content": "Be brief."}
    assert [part["type"] for part in first["content"]] == ["image", "text", "audio"]
    heard, shown = turns[0].attached
    assert first["content"][0]["image"].digest == shown.digest == second["content"][0]["image"].digest
    assert first["content"][2]["audio"].digest == heard.digest
    assert answer == {"role": "assistant", "content": "A circle.", "reasoning": "Look: </details> <b>"}
    assert (found["turns"][0]["generated_tokens"], found["turns"][1]["system"]) == (3, "Be brief.")
    assert found["name"] == "trip"


def test_nothing_is_written_over_unless_it_is_asked_for(turns: list[Turn], tmp_path: Path) -> None:
    path = tmp_path / "chat.md"
    path.write_text("a thesis", encoding="utf-8")
    with pytest.raises(UsageError, match=r"chat\.md is there already; .*--force"):
        export_chat("chat", turns, path)
    assert path.read_text(encoding="utf-8") == "a thesis"
    export_chat("chat", turns, path, force=True)
    assert "A circle." in path.read_text(encoding="utf-8")
    path.unlink()
    with pytest.raises(UsageError, match=r"chat\.md\.media is there already"):
        export_chat("chat", turns, path)


def test_what_cannot_be_exported_is_one_line_and_no_file(turns: list[Turn], tmp_path: Path) -> None:
    for path, why in ((tmp_path / "chat.txt", "neither .md nor .json"), (tmp_path / "no" / "chat.md", "no folder")):
        with pytest.raises(UsageError, match=why):
            export_chat("chat", turns, path)
    with pytest.raises(UsageError, match="nothing was said"):
        export_chat("chat", [], tmp_path / "chat.md")
    with pytest.raises(GemmaError, match="cannot write"):
        export_chat("chat", turns[:1], tmp_path / ("n" * 250 + ".md"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(turns: list[Turn], tmp_path: Path) -> None:
    big = replace(turns[0], answer="word " * 20_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(GemmaError, match="free space"):
            export_chat("chat", [big], tmp_path / "chat.md")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".md", ".json"])
def test_of_media_that_are_gone_the_name_is_left(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "gone.png"
    Image.new("RGB", (48, 48)).save(path)
    gone = attached("image", path, "gone.png", 70)
    path.unlink()
    notes = export_chat("chat", [Turn("Look", [gone], answer="I see.")], tmp_path / f"chat{ending}")
    assert notes == ["gone.png is gone, so only its name is exported"]
    assert "gone.png 48x48" in (tmp_path / f"chat{ending}").read_text(encoding="utf-8")
