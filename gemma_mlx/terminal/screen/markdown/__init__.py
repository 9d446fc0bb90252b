"""Markdown that streams to a terminal: each finished line is given once and never changes.

stream.py cuts the text into source lines, blocks.py says what each line is, tables.py and code_lines.py draw theirs,
inline.py reads the marks inside a paragraph, styled_text.py measures, wraps and writes ANSI.
"""

from gemma_mlx.terminal.screen.markdown.stream import MarkdownStream

__all__ = ["MarkdownStream"]
