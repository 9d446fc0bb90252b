from __future__ import annotations

import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import rawpy
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from gemma_mlx.errors import InputError
from gemma_mlx.inputs import raw_preview
from gemma_mlx.inputs.image import open_image
from gemma_mlx.inputs.raw_preview import is_camera_raw
from gemma_mlx.inputs.video import is_video
from tests.inputs.raw_files import CAMERA, cr2, dng, jpeg, scene

SIDEWAYS = 6
CORNER = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
"""Where the blue corner of `scene` is, upright: (row, column) by EXIF orientation."""


def tiff(tags: dict[int, object], *, big: bool = False) -> bytes:
    file, info = BytesIO(), ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[tag] = value
    Image.new("RGB", (16, 12)).save(file, format="TIFF", tiffinfo=info, big_tiff=big)
    return file.getvalue()


def refusal(data: bytes | Path) -> str:
    with pytest.raises(InputError) as raised:
        open_image(data)
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) < 300
    return message


def assert_upright(data: bytes, orientation: int) -> None:
    opened = open_image(data)
    assert opened.mode == "RGB"
    assert opened.size == (CAMERA if orientation < 5 else CAMERA[::-1])
    corners = np.asarray(opened)[:: opened.height - 1, :: opened.width - 1, 2] > 200
    row, column = CORNER[orientation]
    assert corners[row, column]
    assert corners.sum() == 1


def test_libraw_takes_the_files_of_these_tests_for_raw_pictures() -> None:
    for data in (dng(jpeg(scene())), dng(scene().tobytes()), dng(b""), cr2(jpeg(scene()))):
        with rawpy.imread(BytesIO(data)) as raw:
            assert raw.raw_image.shape == CAMERA[::-1]
            assert (raw.raw_image == 500).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_preview_is_turned_as_the_raw_picture_is(orientation: int) -> None:
    assert_upright(dng(jpeg(scene()), orientation=orientation), orientation)
    assert_upright(dng(scene().tobytes(), orientation=orientation), orientation)
    assert_upright(dng(jpeg(scene(), begins_with_exif=True), orientation=orientation), orientation)
    assert_upright(cr2(jpeg(scene()), orientation=orientation), orientation)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_the_preview_itself_comes_first(orientation: int) -> None:
    preview = jpeg(scene(), orientation, begins_with_exif=True)
    assert_upright(dng(preview, orientation=3), orientation)


def test_preview_is_read_from_a_path_as_from_memory(tmp_path: Path) -> None:
    data = dng(jpeg(scene()), orientation=SIDEWAYS)
    path = tmp_path / "photo.dng"
    path.write_bytes(data)
    assert open_image(path).tobytes() == open_image(data).tobytes()


def test_preview_is_read_as_the_same_jpeg_alone() -> None:
    preview = jpeg(scene())
    assert open_image(dng(preview)).tobytes() == open_image(preview).tobytes()


@pytest.mark.parametrize("data", [dng(jpeg(scene())), cr2(jpeg(scene()))])
def test_without_rawpy_a_line_says_what_to_install(
    data: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    path = tmp_path / "photo.raw"
    path.write_bytes(data)
    message = refusal(path)
    assert message.startswith("photo.raw is a camera raw file")
    assert "pip install 'gemma-mlx[raw]', or export the picture: sips" in message


def test_rawpy_is_not_imported_for_other_pictures() -> None:
    code = (
        "import sys; from PIL import Image; from gemma_mlx.inputs.image import open_image\n"
        "file = sys.stdin.buffer.read()\n"
        "open_image(file)\n"
        "print('rawpy' in sys.modules)"
    )
    for data, is_imported in ((tiff({}), b"False"), (jpeg(scene()), b"False"), (dng(jpeg(scene())), b"True")):
        ended = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
        assert ended.stdout.strip() == is_imported


@pytest.mark.parametrize(
    ("data", "is_raw"),
    [
        (tiff({}), False),
        (tiff({254: 2}), False),
        (tiff({}, big=True), False),
        (tiff({254: 1}), True),  # NEF, ARW
        (tiff({254: 1}, big=True), True),
        (tiff({50706: b"\1\4\0\0"}), True),  # DNG
        (dng(b"").replace(struct.pack("<H", 50706), struct.pack("<H", 50705)), True),  # PEF: only the mosaic says it
        (b"FUJIFILMCCD-RAW 0201", True),
        (b"IIRO\x08\0\0\0", True),
        (b"IIU\0\x18\0\0\0", True),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", True),
        (b"II\x1a\0\0\0HEAPCCDR", True),
        (b"\0\0\0\x18ftypheic\0\0\0\0", False),
        (b"II*\0", False),
        (b"II*\0\xff\xff\xff\xff", False),
        (b"II", False),
    ],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_raw_files_are_known_by_what_is_in_them(data: bytes, is_raw: bool) -> None:
    assert is_camera_raw(BytesIO(data)) == is_raw
    assert not is_video(data)


def test_tiff_that_is_no_raw_file_keeps_its_picture() -> None:
    assert open_image(tiff({254: 2})).size == (16, 12)


def test_raw_file_that_libraw_does_not_know_is_refused() -> None:
    assert "cannot be read (Unsupported file format or not RAW file); export" in refusal(tiff({254: 1}))


def test_raw_file_without_a_preview_is_refused() -> None:
    assert "camera raw file without a preview; export the picture" in refusal(dng(b""))


def test_thumbnail_is_not_taken_for_a_preview() -> None:
    preview = jpeg(scene((160, 120)))
    assert "only a thumbnail of 160 x 120 pixels" in refusal(dng(preview, (160, 120), sensor=(1200, 64)))
    enough = jpeg(scene((1000, 64)))
    assert open_image(dng(enough, (1000, 64), sensor=(1200, 64))).size == (1000, 64)


def test_file_above_the_limit_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_preview, "MAX_RAW_BYTES", 1000)
    monkeypatch.setattr(rawpy, "imread", None)
    assert "bytes, more than the limit of 1,000; export" in refusal(dng(jpeg(scene())))


def test_preview_that_claims_a_huge_size_is_refused() -> None:
    preview = jpeg(scene())
    size_at = preview.index(b"\xff\xc0") + 5
    for side, claim in ((20_000, "decompression bomb"), (12_000, "more than the limit of 120,000,000")):
        claimed = preview[:size_at] + side.to_bytes(2, "big") * 2 + preview[size_at + 4 :]
        assert claim in refusal(dng(claimed))


def test_preview_with_damaged_exif_is_turned_as_the_raw_picture_is() -> None:
    preview = jpeg(scene(), 3, begins_with_exif=True)
    damaged = preview.replace(b"Exif\0\0MM", b"Exif\0\0XX").replace(b"Exif\0\0II", b"Exif\0\0XX")
    assert damaged != preview
    assert_upright(dng(damaged, orientation=SIDEWAYS), SIDEWAYS)


def test_damaged_raw_file_is_read_or_refused() -> None:
    random = np.random.default_rng(0)
    refusals = set()
    for data in (dng(jpeg(scene())), cr2(jpeg(scene()))):
        damaged = [data[:length] for length in range(12, len(data) - 1, len(data) // 40)]
        for _ in range(60):
            broken = bytearray(data)
            broken[int(random.integers(12_300, len(data)))] ^= int(random.integers(1, 256))
            damaged.append(bytes(broken))
        for broken_data in damaged:
            try:
                assert open_image(broken_data).mode == "RGB"
            except InputError as error:
                refusals.add(str(error))
    assert refusals
    assert not [message for message in refusals if "\n" in message]
