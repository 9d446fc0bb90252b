"""Camera raw files, small but whole: LibRaw opens them. Only TIFF's little-endian directories are written by hand."""

from __future__ import annotations

import struct
from io import BytesIO

from PIL import Image

CAMERA = (96, 64)
_FORMAT = {1: "B", 2: "B", 3: "H", 4: "I", 10: "i"}  # TIFF's types: BYTE, ASCII, SHORT, LONG, SRATIONAL
Tags = dict[int, tuple[int, bytes | tuple[int, ...]]]


def scene(size: tuple[int, int] = CAMERA) -> Image.Image:
    """Red, with a blue corner at the top left."""
    image = Image.new("RGB", size, "red")
    image.paste((0, 0, 255), (0, 0, size[0] // 4, size[0] // 4))
    return image


def jpeg(image: Image.Image, orientation: int | None = None, *, begins_with_exif: bool = False) -> bytes:
    """`image` as a JPEG. A camera's own begin with EXIF; Pillow writes a JFIF segment of 18 bytes before it."""
    exif = Image.Exif()
    exif[0x131] = "test"
    if orientation is not None:
        exif[0x112] = orientation
    file = BytesIO()
    image.save(file, format="JPEG", quality=95, exif=exif if begins_with_exif else b"")
    data = file.getvalue()
    return data[:2] + data[20:] if begins_with_exif else data


def dng(
    preview: bytes, size: tuple[int, int] = CAMERA, *, orientation: int = 1, sensor: tuple[int, int] = CAMERA
) -> bytes:
    """A DNG of an even grey on the sensor, with `preview`, a JPEG or RGB pixels of `size`, in a SubIFD."""
    pixels = _grey(sensor)
    preview_at = 8 + len(pixels)
    sub_at = preview_at + len(preview)
    sub = _directory(_preview_tags(preview, preview_at, size), sub_at) if preview else b""
    tags = _sensor_tags(sensor, 8, orientation)
    tags[50706] = (1, (1, 4, 0, 0))  # DNGVersion
    if preview:
        tags[330] = (4, (sub_at,))  # SubIFDs
    first_at = sub_at + len(sub)
    return b"II*\0" + struct.pack("<I", first_at) + pixels + preview + sub + _directory(tags, first_at)


def cr2(preview: bytes, *, orientation: int = 1) -> bytes:
    """As Canon's: the preview is the first picture, which no tag tells from a TIFF's, and the sensor's comes next."""
    pixels = _grey(CAMERA)
    preview_at = 16 + len(pixels)
    first_at = preview_at + len(preview)
    first = _preview_tags(preview, preview_at, CAMERA)
    del first[254]
    first |= {259: (3, (6,)), 271: (2, b"Canon\0"), 272: (2, b"Canon EOS Acme\0"), 274: (3, (orientation,))}
    second_at = first_at + len(_directory(first, first_at))
    second = _sensor_tags(CAMERA, 16, orientation)
    header = b"II*\0" + struct.pack("<I", first_at) + b"CR\2\0" + struct.pack("<I", second_at)
    return header + pixels + preview + _directory(first, first_at, second_at) + _directory(second, second_at)


def _grey(size: tuple[int, int]) -> bytes:
    return struct.pack("<H", 500) * (size[0] * size[1])


def _sensor_tags(size: tuple[int, int], at: int, orientation: int) -> Tags:
    width_px, height_px = size
    return {
        254: (4, (0,)),  # NewSubfileType: the picture itself
        256: (4, (width_px,)),
        257: (4, (height_px,)),
        258: (3, (16,)),  # BitsPerSample
        259: (3, (1,)),  # Compression: none
        262: (3, (32803,)),  # PhotometricInterpretation: colour filter array
        271: (2, b"Acme\0"),  # Make
        272: (2, b"One\0"),  # Model
        273: (4, (at,)),  # StripOffsets
        274: (3, (orientation,)),
        277: (3, (1,)),  # SamplesPerPixel
        278: (4, (height_px,)),  # RowsPerStrip
        279: (4, (2 * width_px * height_px,)),  # StripByteCounts
        33421: (3, (2, 2)),  # CFARepeatPatternDim
        33422: (1, (0, 1, 1, 2)),  # CFAPattern
        50721: (10, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1)),  # ColorMatrix1
    }


def _preview_tags(preview: bytes, at: int, size: tuple[int, int]) -> Tags:
    is_jpeg = preview.startswith(b"\xff\xd8")
    return {
        254: (4, (1,)),  # NewSubfileType: a smaller picture
        256: (4, (size[0],)),
        257: (4, (size[1],)),
        258: (3, (8, 8, 8)),
        259: (3, (7 if is_jpeg else 1,)),
        262: (3, (6 if is_jpeg else 2,)),  # YCbCr or RGB
        273: (4, (at,)),
        277: (3, (3,)),
        278: (4, (size[1],)),
        279: (4, (len(preview),)),
    }


def _directory(tags: Tags, at: int, next_at: int = 0) -> bytes:
    """The directory as it stands at the offset `at`: its entries, then the values longer than 4 bytes."""
    entries, values = b"", b""
    values_at = at + 2 + 12 * len(tags) + 4
    for tag, (kind, numbers) in sorted(tags.items()):
        value = struct.pack(f"<{len(numbers)}{_FORMAT[kind]}", *numbers)
        count = len(numbers) // 2 if kind == 10 else len(numbers)
        if len(value) > 4:
            value, values = struct.pack("<I", values_at + len(values)), values + value
        entries += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", next_at) + values
