"""The marks inside a paragraph: emphasis, code, links. Read by markdown-it, given as styled runs.

Markdown's mathematics ($x^2$, \\(x^2\\)) stays as it was typed, and so does HTML; only <br> breaks the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from rich.style import Style

from gemma_mlx.terminal.safe import visible_line
from gemma_mlx.terminal.screen.markdown.styled_text import PLAIN, Run

MARKS = re.compile(r"[*_~`\[<&\\$]")  # Text without one of these means itself.

_MATH = re.compile(
    r"\$\$[^\n]+?\$\$"
    r"|\$(?![\s$])[^$\n]*?(?<=\S)\$(?!\d)"  # $x^2$, but not "between $5 and $6"
    r"|\\\(.+?\\\)"
    r"|\\\[.+?\\\]"
)
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_BREAKS = ("softbreak", "hardbreak")
_BRACKETS = re.compile(r"[\[\]]")
_STANDS_FOR = {"softbreak": "\n", "hardbreak": "\n", "text_special": "\\"}  # text_special: an escaped character.
_CODE = Style(color="cyan")
_LINK = Style(underline=True)
_ADDRESS = Style(dim=True)
_STYLES = {"strong": Style(bold=True), "em": Style(italic=True), "s": Style(strike=True), "link": _LINK}


def _math(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] not in "$\\":
        return False
    found = _MATH.match(state.src, state.pos, state.posMax)
    if not found:
        return False
    if not silent:
        state.push("math", "", 0).content = found.group()
    state.pos = found.end()
    return True


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("strikethrough")
    parser.inline.ruler.before("escape", "math", _math)
    return parser


_PARSER = _parser()


def _parse(text: str) -> StateInline:
    """The state of markdown-it after `text`: its tokens, and the emphasis that is still open."""
    state = StateInline(text, _PARSER, {}, [])
    _PARSER.inline.tokenize(state)
    for rule in _PARSER.inline.ruler2.getRules(""):
        rule(state)
    return state


def inline(text: str, style: Style = PLAIN) -> list[Run]:
    """`text` as styled runs, its marks taken away."""
    return list(_runs(_parse(text).tokens, style)) if MARKS.search(text) else [(text, style)]


def closed_inline(text: str) -> list[Run] | None:
    """As `inline`, or None where text to come could change what `text` means: an emphasis, code or link is open."""
    state = _parse(text)
    if any(delimiter.open and delimiter.end < 0 for delimiter in state.delimiters) or _may_open(state.tokens):
        return None
    return list(_runs(state.tokens, PLAIN))


def _may_open(tokens: Iterable[Token]) -> bool:
    """Whether a mark that stands in the text as itself could still become the start of code, a link or mathematics."""
    text = "".join(_STANDS_FOR.get(token.type, "x") if token.type != "text" else token.content for token in tokens)
    if "`" in text or "](" in text:
        return True
    depth = 0
    for bracket in _BRACKETS.findall(text):
        depth = depth + 1 if bracket == "[" else max(0, depth - 1)
    last_line = text[text.rfind("\n") + 1 :]
    return depth > 0 or "$" in last_line or "\\" in last_line


def _runs(tokens: Iterable[Token], style: Style) -> Iterable[Run]:
    styles = [style]
    address = ""
    linked = ""
    for token in tokens:
        kind = token.type
        if token.nesting == 1:
            styles.append(_joined(styles[-1], kind.removesuffix("_open")))
            if kind == "link_open":
                address, linked = visible_line(str(token.attrs.get("href", ""))), ""
            continue
        if token.nesting == -1:
            styles.pop()
            if kind == "link_close" and not _says(linked, address):
                yield f" ({address})" if linked else address, styles[-1] + _ADDRESS
            continue
        if kind in _BREAKS:
            linked += " "
            yield "\n", styles[-1]
            continue
        text = _shown(token)
        linked += text
        yield (_broken(text) if kind == "text" else text), (styles[-1] + _CODE if kind == "code_inline" else styles[-1])


def _broken(text: str) -> str:
    return _BREAK.sub("\n", text) if "<" in text else text


def _shown(token: Token) -> str:
    if token.type == "image":
        alt = "".join(" " if child.type in _BREAKS else _shown(child) for child in token.children or ())
        return alt or visible_line(str(token.attrs.get("src", "")))
    return visible_line(token.content)


def _says(linked: str, address: str) -> bool:
    """Whether the text of a link is its address already."""
    bare = address.removeprefix("mailto:")
    return linked in (address, bare, visible_line(_PARSER.normalizeLinkText(address)))


@lru_cache(maxsize=256)
def _joined(style: Style, name: str) -> Style:
    return style + _STYLES.get(name, PLAIN)
