"""What a stranger may put into an answer, a file's name or a chat's lines so that a terminal obeys or misleads, and
how to find it in what was sent to one."""

from __future__ import annotations

import re

ATTACKS = {
    "CSI clear": "\x1b[2J\x1b[H",
    "CSI conceal": "\x1b[8mhidden\x1b[28m",
    "CSI report": "\x1b[6n\x1b[c\x1b[21t",
    "CSI scroll region": "\x1b[5;10r\x1b[77A",
    "alternate screen and mouse": "\x1b[?1049h\x1b[?1003h",
    "OSC 0 title": "\x1b]0;root@bank\x07",
    "OSC 8 link": "\x1b]8;;https://example.com\x1b\\click\x1b]8;;\x1b\\",
    "OSC 52 clipboard": "\x1b]52;c;cm0gLXJm\x07",
    "OSC 1337 file of iTerm2": "\x1b]1337;File=inline=1:AAAA\x07",
    "APC graphics of kitty": "\x1b_Gf=24,s=1,v=1;AAAA\x1b\\",
    "DCS": '\x1bP$q"p\x1b\\',
    "DCS through tmux": "\x1bPtmux;\x1b\x1b]52;c;eA==\x07\x1b\\",
    "PM and SOS": "\x1b^private\x1b\\\x1bXstring\x1b\\",
    "reset and other sets of characters": "\x1bc\x1b(0\x0e\x0f",
    "ESC at the end": "end\x1b",
    "C1 CSI": "\x9b2J",
    "C1 OSC and ST": "\x9d0;title\x9c",
    "C1 DCS, SOS, PM, APC": "\x90q\x9c\x98x\x9c\x9ex\x9c\x9fGa=d\x9c",
    "C1 as bytes that are no UTF-8": "\udc9b2J\udc9d0;t\udc9c",
    "end of a bracketed paste": "\x1b[201~rm -rf ~",
    "carriage return": "safe\rdangerous",
    "backspaces": "safe\b\b\b\bevil",
    "NUL, BEL, VT, FF, DEL": "a\x00b\x07c\x0bd\x0ce\x7ff",
    "bidi override": "a\u202egnp.exe\u202c",
    "bidi embedding": "a\u202bb\u202ac\u202dd\u202c",
    "bidi isolates": "a\u2066b\u2067c\u2068d\u2069",
    "line and paragraph separators": "one\u2028two\u2029three\x85four",
    "lone surrogates": "a\ud800b\udcffc",
    "annotations between lines": "\ufff9a\ufffab\ufffb",
    "old format characters": "a\u206ab\u206ec\u206f",
}
INVISIBLE = {
    "tag characters": "a\U000e0041\U000e0042\U000e007f",
    "direction marks": "a\u200e.\u200f.\u061cb",
    "no width": "pay\u200bpal\u2060.\ufeff\u00adcom",
}
"""What a terminal does not obey, and what text of many languages or an emoji may hold; a name on one line shows it."""

_STYLE = r"(?:[0-479]|2[2-79]|[349][0-79]|10[0-7]|[34]8;5;\d{1,3}|[34]8;2(?:;\d{1,3}){3})"
_SENT_BY_US = re.compile(
    r"\x1b\["
    r"(?:\?(?:1|7|12|25|2004|2026)[hl]"  # cursor keys, line wrap, the cursor, bracketed paste, drawing at once
    rf"|(?:{_STYLE}(?:;{_STYLE})*)?m"
    r"|\d{0,2}[ABCD]|0?[JK]|\d? q)"  # moves within the live area, and the cursor's shape
)
_OBEYED = re.compile("[^\b\t\n\r -~\xa0-\ud7ff\ue000-\U0010ffff]|[\u2028-\u202e\u2066-\u206f\ufff9-\ufffb]")


def leaks(sent: str) -> list[str]:
    """What stands in `sent` that a terminal obeys and no part of the chat sends, each with what is around it."""
    rest = _SENT_BY_US.sub("", sent)
    around = [rest[max(0, found.start() - 20) : found.end() + 20] for found in _OBEYED.finditer(rest)]
    return [*around, *(attack for attack in ATTACKS.values() if attack in rest)]
