"""A camera raw file -> the preview that the camera put into it, as large as the picture or nearly so.

A raw file holds what the sensor saw, one colour a pixel, and beside it the camera's own picture of that: a JPEG, seldom
plain pixels. The preview is what a person sees in a file browser. LibRaw finds it in the files of all makers; rawpy,
which carries LibRaw, is imported when a raw file comes, and a person installs it by choice.
"""

from __future__ import annotations

import os
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from gemma_mlx.errors import InputError

if TYPE_CHECKING:
    from rawpy import RawPy

MAX_RAW_BYTES = 1_000_000_000
"""Larger raw files are refused: LibRaw is given the whole file in memory. The largest cameras write 300 MB."""
MIN_SIDE_PX = 1000
"""A preview whose longer side is shorter than this, and than the picture's, is a thumbnail: too little is left."""

_TIFF_HEADER_BYTES, _BIG_TIFF_HEADER_BYTES = 8, 16
_TIFF_STARTS, _BIG_TIFF_STARTS = (b"II*\0", b"MM\0*"), (b"II+\0", b"MM\0+")
# RAF, ORF (three kinds), RW2, X3F, MRW
_RAW_STARTS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM")
_CR2_AT_8, _CR3_AT_4, _CRW_AT_6 = b"CR\x02", b"ftypcrx ", b"HEAPCCDR"
_NEW_SUBFILE_TYPE, _PHOTOMETRIC, _DNG_VERSION = 254, 262, 50706  # tags of TIFF
_REDUCED = 1  # a NewSubfileType: this picture stands for a larger one
_CFA, _LINEAR_RAW = 32803, 34892  # photometric interpretations
_ORIENTATION_OF_FLIP = (1, 2, 4, 3, 5, 8, 6, 7)  # LibRaw's flip, 0..7 -> EXIF's orientation
_EXPORT = "export the picture: sips -s format jpeg IN --out OUT.jpg"


def is_camera_raw(file: BinaryIO) -> bool:
    """Whether `file`, read from its beginning, is a camera raw file: by its first bytes or, as a TIFF, by its tags.

    In NEF and ARW the first picture of the TIFF is a small preview and says so, DNG and PEF have tags of their own;
    in CR2 the first picture says nothing, and the file header does.
    """
    file.seek(0)
    start = file.read(_BIG_TIFF_HEADER_BYTES)
    if start.startswith(_BIG_TIFF_STARTS):
        return _has_raw_tags(file, start)
    if start.startswith(_TIFF_STARTS):
        return start[8:11] == _CR2_AT_8 or _has_raw_tags(file, start[:_TIFF_HEADER_BYTES])
    return start.startswith(_RAW_STARTS) or start[4:12] == _CR3_AT_4 or start[6:14] == _CRW_AT_6


def _has_raw_tags(file: BinaryIO, header: bytes) -> bool:
    try:
        tags = ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
        return (
            _DNG_VERSION in tags
            or tags.get(_NEW_SUBFILE_TYPE) == _REDUCED
            or tags.get(_PHOTOMETRIC) in (_CFA, _LINEAR_RAW)
        )
    except Exception:  # Damaged tags: what opens the TIFF says so.
        return False


def open_preview(file: BinaryIO, name: str) -> Image.Image:
    """The largest preview in a camera raw file, not decoded yet, its EXIF with the orientation that turns it upright.

    Its own orientation counts, where it has one, and the raw picture's otherwise. InputError where rawpy is not
    installed, and where the file is too large, damaged, unknown to LibRaw or without a preview worth reading.
    """
    try:
        import rawpy
    except ImportError as error:
        raise InputError(
            f"{name} is a camera raw file; to read the preview in it: pip install 'gemma-mlx[raw]', or {_EXPORT}"
        ) from error
    size_bytes = file.seek(0, os.SEEK_END)
    if size_bytes > MAX_RAW_BYTES:
        raise InputError(
            f"{name} is a camera raw file of {size_bytes:,} bytes, more than the limit of {MAX_RAW_BYTES:,}; {_EXPORT}"
        )
    file.seek(0)
    try:
        with rawpy.imread(file) as raw:
            preview = _extracted(raw)
            side_px = max(raw.sizes.width, raw.sizes.height)
    except rawpy.LibRawNoThumbnailError as error:
        raise InputError(f"{name} is a camera raw file without a preview; {_EXPORT}") from error
    except Exception as error:  # LibRaw's own kinds, and Pillow's on a damaged or huge JPEG and on its EXIF
        raise InputError(
            f"{name} is a camera raw file whose preview cannot be read ({_reason(error)}); {_EXPORT}"
        ) from error
    if max(preview.size) < min(MIN_SIDE_PX, side_px):
        raise InputError(
            f"{name} is a camera raw file with only a thumbnail of {preview.width} x {preview.height} pixels in it; "
            f"{_EXPORT}"
        )
    return preview


def _extracted(raw: RawPy) -> Image.Image:
    data = raw.extract_thumb().data
    if isinstance(data, bytes):
        preview: Image.Image = Image.open(BytesIO(data), formats=("JPEG",))
    else:
        preview = Image.fromarray(np.array(data))  # a copy: LibRaw's own pixels go when the file is closed
    exif = preview.getexif()
    if exif.get(ExifTags.Base.Orientation) not in _ORIENTATION_OF_FLIP:
        exif[ExifTags.Base.Orientation] = _ORIENTATION_OF_FLIP[raw.sizes.flip]
    return preview


def _reason(error: Exception) -> str:
    """The text of an error, which rawpy keeps as bytes."""
    first = error.args[0] if error.args else ""
    text = first.decode(errors="replace") if isinstance(first, bytes) else str(error)
    return " ".join(text.split()) or type(error).__name__
