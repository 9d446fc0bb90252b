"""A picture on disk or in memory -> the 48 x 48 patches that the model's patch embedder takes.

`open_image` gives the picture as a person sees it: turned upright by its EXIF orientation (a HEIC by its own, of which
EXIF is a copy), the first frame, alpha laid over white, 16 bits scaled down to 8; of a camera raw file, the preview in
it. Colour profiles are not applied, as in the reference processor. From there on sizes, pixels, patches and positions
equal those of transformers' `Gemma4UnifiedImageProcessor`, bit for bit.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from gemma_mlx.errors import InputError
from gemma_mlx.inputs.raw_preview import is_camera_raw, open_preview
from gemma_mlx.inputs.resize import resize_bicubic

BUDGETS = (70, 140, 280, 560, 1120)
Budget = int | Literal["auto"]
"""Most soft tokens of a picture: one of `BUDGETS`, or as `gemma_mlx.inputs.detail` chooses for each."""
PATCH_SIDE_PX = 48
PATCH_VALUES = PATCH_SIDE_PX * PATCH_SIDE_PX * 3
MAX_PIXELS = 120_000_000
"""Larger pictures are refused: a decoded pixel takes 4 bytes, and a file of a few bytes can claim any size."""
MAX_SIDE_PX = 65_535
"""Longer sides are refused, as in JPEG: resizing takes several hundred bytes per pixel of the longest side."""

_RESCALE = np.float32(0.00392156862745098)  # processor_config.json: rescale_factor
# Named, because Pillow's full list holds formats that start other programs (EPS runs Ghostscript).
_FORMATS = ("PNG", "JPEG", "GIF", "PPM", "BMP", "WEBP", "TIFF", "ICO", "ICNS", "JPEG2000", "AVIF")
_FORMATS_TO_PRINT = "PNG, JPEG, HEIC, GIF, WebP, TIFF, BMP, AVIF"
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
STILL_BRANDS = (*_HEIF_BRANDS, b"avif", b"avis", b"crx ")
"""Of files that begin like MPEG-4, these hold pictures."""
_FIRST_BYTES = 12

ImageSource = Path | str | bytes | BinaryIO | Image.Image


@dataclass(frozen=True)
class ImagePatches:
    """One picture as the model takes it. `width_px`, `height_px` are the upright picture's own size."""

    patches: NDArray[np.float32]  # [P, 6912] values 0..1; rows of a patch, then columns, then RGB
    positions: NDArray[np.int32]  # [P, 2] (x, y) of each patch, counted in patches
    width_px: int
    height_px: int
    resized_width_px: int
    resized_height_px: int

    @property
    def soft_tokens(self) -> int:
        """Positions that the picture takes in the prompt: one per patch."""
        return len(self.patches)


def prepare_image(image: ImageSource, max_soft_tokens: int = 280) -> ImagePatches:
    """`image` opened and cut into at most `max_soft_tokens` patches, in rows from the top left."""
    return patches_of(open_image(image), max_soft_tokens)


def patches_of(upright: Image.Image, max_soft_tokens: int, *, of_video: bool = False) -> ImagePatches:
    """An upright RGB picture, or a frame `of_video`, cut into at most `max_soft_tokens` patches."""
    width_px, height_px = fitted_size(upright.width, upright.height, max_soft_tokens)
    pixels = resize_bicubic(np.asarray(upright), width_px, height_px)  # [height, width, 3]
    across, down = width_px // PATCH_SIDE_PX, height_px // PATCH_SIDE_PX
    grid = pixels.reshape(down, PATCH_SIDE_PX, across, PATCH_SIDE_PX, 3).swapaxes(1, 2)  # [down, across, 48, 48, 3]
    y, x = np.divmod(np.arange(down * across, dtype=np.int32), across)
    levels = grid.reshape(down * across, PATCH_VALUES).astype(np.float32)  # [P, 6912]
    return ImagePatches(
        # As the reference's two processors do: half of the 256 levels differ in the last bit.
        patches=levels / np.float32(255) if of_video else levels * _RESCALE,
        positions=np.stack([x, y], axis=-1),  # [P, 2]
        width_px=upright.width,
        height_px=upright.height,
        resized_width_px=width_px,
        resized_height_px=height_px,
    )


def fitted_size(width_px: int, height_px: int, max_soft_tokens: int) -> tuple[int, int]:
    """(width, height) in whole patches that come nearest to the budget at the same aspect ratio.

    Small pictures are scaled up. A side too thin for one patch gets one; the other side then follows the whole
    number ratio of the original sides, up to the budget. InputError for a budget that is not in `BUDGETS`.
    """
    if max_soft_tokens not in BUDGETS:
        allowed = ", ".join(map(str, BUDGETS))
        raise InputError(f"An image budget of {max_soft_tokens} tokens is not one the model knows; use {allowed}")
    if width_px < 1 or height_px < 1:
        raise InputError(f"A picture of {width_px} x {height_px} pixels has nothing to show; attach another one")
    # The steps and their order are the reference's: another order rounds some sizes to another patch count.
    factor = math.sqrt(max_soft_tokens * PATCH_SIDE_PX**2 / (height_px * width_px))
    across = math.floor(factor * width_px / PATCH_SIDE_PX)
    down = math.floor(factor * height_px / PATCH_SIDE_PX)
    if down == 0:
        across, down = min(width_px // height_px, max_soft_tokens), 1
    elif across == 0:
        across, down = 1, min(height_px // width_px, max_soft_tokens)
    return across * PATCH_SIDE_PX, down * PATCH_SIDE_PX


def open_image(source: ImageSource) -> Image.Image:
    """`source` as an upright 8-bit RGB picture: its first frame, alpha over white.

    A `PIL.Image` stays as it is, on the frame that it shows. InputError where the picture is missing, empty,
    not a picture, damaged, of more than `MAX_PIXELS` pixels, or longer than `MAX_SIDE_PX`.
    """
    if isinstance(source, Image.Image):
        return _decoded(source.copy(), "the picture")
    if isinstance(source, bytes):
        return _read(BytesIO(source), "the picture")
    if not isinstance(source, (str, Path)):
        return _read(BytesIO(source.read()), "the picture")
    path = Path(source)
    try:
        with path.open("rb") as file:
            return _read(file, path.name)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"cannot open the picture {path}: {reason}; check the path") from error


def _read(file: BinaryIO, name: str) -> Image.Image:
    start = file.read(_FIRST_BYTES)
    if not start:
        raise InputError(f"{name} is empty (0 bytes); attach a picture that has been written completely")
    # Pillow warns on stderr about large pictures, for which the limit here stands, and about metadata it can skip.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_preview(file, name) if is_camera_raw(file) else _opened(file, start, name) as image:
            return _decoded(image, name)


def _opened(file: BinaryIO, start: bytes, name: str) -> Image.Image:
    """The picture in `file`, not decoded yet."""
    formats: tuple[str, ...] = _FORMATS
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        import pillow_heif

        pillow_heif.register_heif_opener()
        formats = (*_FORMATS, "HEIF")
    file.seek(0)
    try:
        return Image.open(file, formats=formats)
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is too large ({error}); scale it down to {MAX_PIXELS:,} pixels") from error
    except Exception as error:
        raise InputError(
            f"{name} is not a picture that can be read ({_FORMATS_TO_PRINT}); convert it to PNG"
        ) from error


def _decoded(image: Image.Image, name: str) -> Image.Image:
    """`image` itself or what replaces it, upright and RGB."""
    if image.width * image.height > MAX_PIXELS:
        raise InputError(
            f"{name} has {image.width} x {image.height} = {image.width * image.height:,} pixels, "
            f"more than the limit of {MAX_PIXELS:,}; scale it down"
        )
    if max(image.size) > MAX_SIDE_PX:
        raise InputError(
            f"{name} has {image.width} x {image.height} pixels, more than the limit of {MAX_SIDE_PX:,} on a side; "
            "cut it into shorter pictures"
        )
    try:
        image.load()
        # Some formats learn the orientation while they decode, so it is applied after.
        ImageOps.exif_transpose(image, in_place=True)
        return _rgb(image, name)
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly every kind of exception on damaged data.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name} is damaged or cut short ({reason}); save or download it again") from error


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image, name)
    if image.has_transparency_data:
        visible = image.convert("RGBA")
        white = Image.new("RGBA", visible.size, "white")
        return Image.alpha_composite(white, visible).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Grey of 16 bits, 0..65535, rounded to 0..255 (Pillow's own conversion cuts at 255, so all turns white)."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise InputError(f"{name} has values of no known range; save it with 8 or 16 bits per channel")
    grey = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey
