"""Text of others, made safe to write to a terminal.

A model, a file's name or an error message may hold bytes that a terminal obeys: they can retitle it, fill the
clipboard (OSC 52), or make text read other than it is (bidirectional overrides). Here each becomes a mark that shows.
It is done character by character, so it holds for text that arrives in pieces too.
"""

from __future__ import annotations

_C0 = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\u2421"}  # ESC becomes ␛
_C1 = range(0x80, 0xA0)
_BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x2070))
_SEPARATORS = (0x2028, 0x2029, *range(0xFFF9, 0xFFFC))  # of lines and paragraphs; what a note between lines stands in
_SURROGATES = range(0xD800, 0xE000)  # Bytes of a file name that are no UTF-8 come as U+DC80..U+DCFF.
_UNSEEN = (0x00AD, 0x061C, 0x200B, 0x200E, 0x200F, *range(0x2060, 0x2065), 0xFEFF, *range(0xE0000, 0xE0080))
"""Characters without width: right in some texts, as in Scotland's flag; in a name they only make two look alike."""

_MARKED = (*_C1, *_BIDI, *_SEPARATORS, *_SURROGATES)
_LINE = _C0 | {code: f"<U+{code:04X}>" for code in _MARKED}
_IN_PLACE = dict.fromkeys(_LINE, "\ufffd")
_TEXT = {code: mark for code, mark in _LINE.items() if chr(code) not in "\n\t"}
_NAME = _LINE | {code: f"<U+{code:04X}>" for code in _UNSEEN}


def visible(text: str) -> str:
    """`text` with a mark for each control character but newline and tab, and for what overrides its direction."""
    return text.translate(_TEXT)


def visible_line(text: str) -> str:
    """As `visible`, with marks for newlines and tabs too: whatever `text` is, it stays on its line."""
    return text.translate(_LINE)


def visible_in_place(text: str) -> str:
    """`text` in as many characters, with U+FFFD for each that is a mark in `visible_line`."""
    return text.translate(_IN_PLACE)


def visible_name(name: str) -> str:
    """As `visible_line`, for a name that a person goes by: characters without width are marked too."""
    return name.translate(_NAME)
