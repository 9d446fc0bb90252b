from __future__ import annotations

import json
import struct
import tracemalloc
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from gemma_mlx.errors import InputError
from gemma_mlx.inputs import image as image_module
from gemma_mlx.inputs.image import BUDGETS, fitted_size, open_image, prepare_image
from tests.golden.make_processing import picture, reference_patches, reference_size, sha256

GOLDEN = Path(__file__).parents[1] / "golden"
PROCESSING = json.loads((GOLDEN / "processing.json").read_text(encoding="utf-8"))


def saved(image: Image.Image, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, **{"format": "PNG", **options})  # type: ignore[arg-type]
    return file.getvalue()


def pixels(source: image_module.ImageSource) -> list[list[list[int]]]:
    opened = open_image(source)
    assert opened.mode == "RGB"
    found: list[list[list[int]]] = np.asarray(opened).tolist()
    return found


def assert_one_line(error: InputError) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 300


@pytest.mark.parametrize(("width", "height", "budget", "fitted_width", "fitted_height"), PROCESSING["sizes"])
def test_size_equals_reference(width: int, height: int, budget: int, fitted_width: int, fitted_height: int) -> None:
    assert fitted_size(width, height, budget) == (fitted_width, fitted_height)


@settings(max_examples=300, deadline=None)
@given(width=st.integers(1, 20_000), height=st.integers(1, 20_000), budget=st.sampled_from(BUDGETS))
def test_fitted_size_is_whole_patches_within_budget(width: int, height: int, budget: int) -> None:
    fitted_width, fitted_height = fitted_size(width, height, budget)
    assert fitted_width % 48 == fitted_height % 48 == 0
    assert 1 <= (fitted_width // 48) * (fitted_height // 48) <= budget
    assert fitted_size(height, width, budget) == (fitted_height, fitted_width)


@pytest.mark.parametrize("golden", PROCESSING["pictures"], ids=lambda golden: str(golden["size"]))
def test_patches_and_positions_equal_reference(golden: dict[str, Any]) -> None:
    width, height, budget = golden["size"]
    prepared = prepare_image(saved(Image.fromarray(picture(width, height))), budget)
    assert prepared.soft_tokens == golden["soft_tokens"]
    assert np.rint(prepared.patches[0, :12] * 255).astype(int).tolist() == golden["first"]
    assert sha256(prepared.positions) == golden["positions"]
    assert sha256(prepared.patches) == golden["patches"]


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_budget_gives_what_it_allows(budget: int) -> None:
    prepared = prepare_image(Image.new("RGB", (1000, 700), "red"), budget)
    assert 0.85 * budget < prepared.soft_tokens <= budget
    assert prepared.patches.shape == (prepared.soft_tokens, 6912)
    assert prepared.patches.dtype == np.float32
    assert prepared.positions.dtype == np.int32
    assert prepared.positions.max(axis=0).tolist() == [
        prepared.resized_width_px // 48 - 1,
        prepared.resized_height_px // 48 - 1,
    ]
    assert (prepared.width_px, prepared.height_px) == (1000, 700)


@pytest.mark.parametrize("size", [(1, 1), (48, 48), (3, 900), (1, 5000)])
def test_small_and_thin_pictures_are_scaled_up(size: tuple[int, int]) -> None:
    prepared = prepare_image(Image.new("RGB", size, (10, 20, 30)), 70)
    assert prepared.resized_width_px >= 48
    assert prepared.resized_width_px * prepared.resized_height_px > size[0] * size[1]
    levels = np.rint(prepared.patches.reshape(-1, 3) * 255)
    assert (levels == [10, 20, 30]).all()


def test_unknown_budget_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"300 tokens.*70, 140, 280, 560, 1120"):
        fitted_size(10, 10, 300)


UNDO = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", UNDO)
@pytest.mark.parametrize("mode", ["RGB", "I;16", "LA"])
def test_exif_orientation_is_applied(orientation: int, mode: str) -> None:
    grey = (np.arange(6, dtype=np.uint16).reshape(2, 3) * 257 * 40).astype(np.uint16)
    eight_bits = Image.fromarray((grey // 257).astype(np.uint8))
    upright = Image.fromarray(grey) if mode == "I;16" else eight_bits.convert(mode)
    transpose = UNDO[orientation]
    stored = upright if transpose is None else upright.transpose(transpose)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(stored, exif=exif)
    assert pixels(data) == (grey // 257)[..., None].repeat(3, axis=2).tolist()
    prepared = prepare_image(data, 70)
    assert (prepared.width_px, prepared.height_px) == (3, 2)


def test_alpha_is_laid_over_white() -> None:
    clear, half, solid = (255, 0, 0, 0), (0, 0, 255, 128), (1, 2, 3, 255)
    image = Image.new("RGBA", (3, 1))
    image.putdata([clear, half, solid])
    assert pixels(saved(image)) == [[[255, 255, 255], [127, 127, 255], [1, 2, 3]]]


def test_grey_alpha_is_laid_over_white() -> None:
    image = Image.new("LA", (2, 1))
    image.putdata([(0, 0), (50, 255)])
    assert pixels(saved(image)) == [[[255] * 3, [50] * 3]]


def test_palette_keeps_its_colours() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    assert pixels(saved(image)) == [[[255, 0, 0], [0, 255, 0]]]


def test_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    assert pixels(saved(image, transparency=0)) == [[[255, 255, 255], [0, 255, 0]]]


def test_transparent_colour_of_rgb_is_white() -> None:
    image = Image.new("RGB", (2, 1))
    image.putdata([(9, 9, 9), (9, 9, 8)])
    assert pixels(saved(image, transparency=(9, 9, 9))) == [[[255, 255, 255], [9, 9, 8]]]


@pytest.mark.parametrize("format_name", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(format_name: str) -> None:
    grey = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    assert pixels(saved(Image.fromarray(grey), format=format_name)) == [[[0] * 3, [1] * 3, [128] * 3, [255] * 3]]


def png(width: int, height: int, bit_depth: int, colour_type: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand, for what Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    body = b"".join(chunk(name, data) for name, data in chunks)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def test_sixteen_bit_colour_and_transparent_grey() -> None:
    colour = png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 65535, 257 * 7, 0))
    assert pixels(colour) == [[[255, 7, 0]]]
    grey = png(2, 1, 16, 0, b"\0" + struct.pack(">HH", 500, 257 * 7), (b"tRNS", struct.pack(">H", 500)))
    assert pixels(grey) == [[[255] * 3, [7] * 3]]


def test_float_picture_is_refused() -> None:
    with pytest.raises(InputError, match="no known range; save it with 8 or 16 bits"):
        open_image(saved(Image.fromarray(np.ones((2, 2), dtype=np.float32)), format="TIFF"))


def test_cmyk_becomes_rgb() -> None:
    data = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), format="JPEG", quality=100)
    red, green, blue = pixels(data)[4][4]
    assert red > 250
    assert green < 5
    assert blue < 5


def test_colour_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.new("RGB", (1, 1), (200, 10, 10))
    assert pixels(saved(image, icc_profile=profile)) == pixels(saved(image))


@pytest.mark.parametrize("format_name", ["GIF", "PNG", "WEBP"])
def test_animation_shows_its_first_frame(format_name: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = saved(frames[0], format=format_name, save_all=True, append_images=frames[1:], lossless=True)
    assert pixels(data)[0][0] == [255, 0, 0]
    assert prepare_image(data, 70).soft_tokens == prepare_image(frames[0], 70).soft_tokens


def test_sources_of_every_kind_give_the_same_picture(tmp_path: Path) -> None:
    image = Image.fromarray(picture(20, 10))
    data = saved(image)
    path = tmp_path / "a picture.png"
    path.write_bytes(data)
    with path.open("rb") as file:
        opened = [open_image(source).tobytes() for source in (path, str(path), data, file, image)]
    assert opened == [image.tobytes()] * 5


def test_given_image_object_is_left_alone() -> None:
    image = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
    image.getexif()[0x0112] = 6
    open_image(image)
    assert (image.mode, image.size, image.getexif()[0x0112]) == ("RGBA", (4, 2), 6)


def test_decompression_bomb_names_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module, "MAX_PIXELS", 1000)
    data = saved(Image.new("1", (100, 11)))
    with pytest.raises(InputError, match=r"100 x 11 = 1,100 pixels.*limit of 1,000") as raised:
        open_image(data)
    assert_one_line(raised.value)


@pytest.mark.parametrize("side", [11_000, 60_000])
def test_claimed_size_is_refused_before_decoding(side: int) -> None:
    with pytest.raises(InputError, match=r"pixels.*scale it down") as raised:
        open_image(png(side, side, 8, 2, b""))
    assert_one_line(raised.value)


@pytest.mark.parametrize("size", [(8_000_000, 1), (1, 8_000_000)])
def test_long_thin_picture_is_refused_before_decoding(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=rf"{size[0]} x {size[1]} pixels.*65,535 on a side; cut it") as raised:
        open_image(png(*size, 1, 0, b""))
    assert_one_line(raised.value)


def test_longest_side_is_read_in_little_memory() -> None:
    image = Image.new("RGB", (1, image_module.MAX_SIDE_PX), (10, 20, 30))
    tracemalloc.start()
    prepared = prepare_image(image, 70)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert prepared.soft_tokens == 70
    assert peak_bytes < 100_000_000


@pytest.mark.filterwarnings("error")
def test_large_picture_below_the_limit_gives_no_warning() -> None:
    with pytest.raises(InputError, match="damaged or cut short"):
        open_image(png(10_000, 10_000, 1, 0, b""))


@pytest.mark.parametrize(("quarters", "corner"), [(0, (0, 0)), (1, (0, -1)), (2, (-1, -1)), (3, (-1, 0))])
def test_heic_is_turned_as_it_says_and_once(quarters: int, corner: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "photo.heic"
    path.write_bytes(turned_heic(quarters))
    opened = open_image(path)
    assert opened.size == ((128, 192) if quarters % 2 else (192, 128))
    pixels = np.asarray(opened).astype(int)
    blue = pixels[:: pixels.shape[0] - 1, :: pixels.shape[1] - 1, 2]  # the four corners
    assert blue[corner[1], corner[0]] > 200
    assert (blue > 200).sum() == 1


def turned_heic(quarters: int) -> bytes:
    """A red HEIC with a blue corner, turned `quarters` against the clock, whose EXIF asks for a turn as well.

    The encoder writes no turn, so one takes the place of a property of the same size, which repeats the bits per
    channel.
    """
    import pillow_heif

    pillow_heif.register_heif_opener()
    image = Image.new("RGB", (192, 128), "red")
    image.paste((0, 0, 255), (0, 0, 48, 48))
    exif = Image.Exif()
    exif[0x112] = 6
    data = saved(image, format="HEIF", exif=exif)
    return data.replace(b"pixi\0\0\0\0\x03\x08\x08\x08", b"irot" + bytes([quarters]) + bytes(7))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_turned_by_its_orientation(orientation: int) -> None:
    image = Image.new("RGB", (96, 64), "red")
    image.paste((0, 0, 255), (0, 0, 24, 24))
    exif = Image.Exif()
    exif[0x112] = orientation
    expected = np.asarray(open_image(saved(image, format="PNG", exif=exif))).astype(int)
    found = np.asarray(open_image(saved(image, format="AVIF", quality=95, exif=exif))).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 8


def test_damaged_heic_is_read_or_refused() -> None:
    data = turned_heic(1)
    random = np.random.default_rng(0)
    for length in range(12, len(data), len(data) // 12):
        with pytest.raises(InputError) as raised:
            open_image(data[:length])
        assert_one_line(raised.value)
    for _ in range(30):
        broken = bytearray(data)
        broken[int(random.integers(12, len(data)))] ^= int(random.integers(1, 256))
        try:
            assert open_image(bytes(broken)).mode == "RGB"
        except InputError as error:
            assert_one_line(error)


def test_missing_file_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.png: No such file.*check the path") as raised:
        open_image(tmp_path / "nowhere.png")
    assert_one_line(raised.value)


def test_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Is a directory"):
        open_image(tmp_path)


@pytest.mark.parametrize(
    ("content", "claim"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"Dear diary,\ntoday I learned nothing.\n", "not a picture that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture that can be read"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "not a picture that can be read .*HEIC"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(content: bytes, claim: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"notes\.png.*" + claim) as raised:
        open_image(path)
    assert_one_line(raised.value)


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000"])
def test_truncated_picture_is_refused(format_name: str) -> None:
    data = saved(Image.fromarray(picture(64, 64)), format=format_name)
    for length in range(0, len(data) // 2, max(1, len(data) // 40)):
        with pytest.raises(InputError) as raised:
            open_image(data[:length])
        assert_one_line(raised.value)


@settings(max_examples=150, deadline=None)
@given(
    format_name=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"]),
    flips=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=8),
    cut=st.integers(1, 4000),
)
def test_damaged_picture_opens_or_is_refused(format_name: str, flips: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(saved(Image.fromarray(picture(40, 30)), format=format_name))
    for place, value in flips:
        data[place % len(data)] = value
    try:
        opened = open_image(bytes(data[: max(1, cut)]))
    except InputError as error:
        assert_one_line(error)
    else:
        assert opened.mode == "RGB"


@pytest.mark.reference
@settings(max_examples=500, deadline=None)
@given(width=st.integers(1, 9000), height=st.integers(1, 9000), budget=st.sampled_from(BUDGETS))
def test_size_equals_live_reference(width: int, height: int, budget: int) -> None:
    assert fitted_size(width, height, budget) == reference_size(width, height, budget)


@pytest.mark.reference
@settings(max_examples=25, deadline=None)
@given(width=st.integers(1, 700), height=st.integers(1, 700), budget=st.sampled_from(BUDGETS[:3]))
def test_patches_equal_live_reference(width: int, height: int, budget: int) -> None:
    prepared = prepare_image(Image.fromarray(picture(width, height)), budget)
    patches, positions = reference_patches(picture(width, height), budget)
    assert np.array_equal(prepared.patches, patches)
    assert np.array_equal(prepared.positions, positions)
