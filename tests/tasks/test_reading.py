from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from gemma_mlx import Gemma
from gemma_mlx.answer import Reply
from gemma_mlx.errors import InputError
from gemma_mlx.inputs.tiles import strips
from gemma_mlx.tasks import reading


@pytest.fixture(scope="module")
def dense() -> Image.Image:
    """A page of 2000 x 2400 px in letters of 26 px: more than one picture may show."""
    page = Image.new("RGB", (2000, 2400), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(26)
    for index, top in enumerate(range(10, 2380, 36)):
        draw.text((20, top), f"{index:04} " + "lorem quick brown table house of and in river " * 4, "black", font)
    return page


def as_png(page: Image.Image) -> bytes:
    stream = BytesIO()
    page.save(stream, "PNG")
    return stream.getvalue()


def test_a_dense_page_is_read_in_strips_and_a_small_picture_whole(miniature: Gemma, dense: Image.Image) -> None:
    page = reading.prepare_page(miniature, as_png(dense))
    assert len(page.pieces) == len(strips(2000, 2400)) > 1
    assert f"in {len(page.pieces)} strips" in page.label
    assert all(piece.soft_tokens > 560 for piece in page.pieces)
    small = reading.prepare_page(miniature, as_png(dense.crop((0, 0, 400, 60))))
    assert len(small.pieces) == 1
    assert len(reading.prepare_page(miniature, as_png(dense), 280).pieces) == 1
    assert len(reading.prepare_page(miniature, as_png(dense), "auto").pieces) == len(page.pieces)


def test_the_strips_together_say_what_the_page_says(
    miniature: Gemma, dense: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each strip is answered with the lines that it shows, and those that its edge cuts with rubbish."""
    lines = [(index, top, top + 30) for index, top in enumerate(range(10, 2380, 36))]
    answers = iter(
        "\n".join(
            f"{index:04} lorem" if strip.top <= top and bottom <= strip.bottom else "###"
            for index, top, bottom in lines
            if bottom > strip.top and top < strip.bottom
        )
        for strip in strips(2000, 2400)
    )
    blank = miniature.reply([{"role": "user", "content": "Hello"}], max_tokens=2)

    def answer(messages: object, **options: object) -> Reply:
        return replace(blank, text=next(answers), finish_reason="stop")

    monkeypatch.setattr(miniature, "reply", answer)
    page = reading.prepare_page(miniature, as_png(dense))
    reply = reading.read_page(miniature, page)
    assert reply.text.splitlines() == [f"{index:04} lorem" for index, _, _ in lines]
    assert reply.prompt_tokens == blank.prompt_tokens * len(page.pieces)
    assert reply.finish_reason == "stop"


def test_what_is_no_picture_is_refused(miniature: Gemma, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        reading.prepare_page(miniature, b"no picture")
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(40))
    with pytest.raises(InputError, match=r"a\.mp4 is a video"):
        reading.prepare_page(miniature, tmp_path / "a.mp4")
