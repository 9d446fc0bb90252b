"""How the parts of the screen lie below each other, around prompt_toolkit's own line editor."""

from __future__ import annotations

import sys
from collections.abc import Callable

from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application
from prompt_toolkit.completion import Completer
from prompt_toolkit.filters import Condition, is_done, to_filter
from prompt_toolkit.formatted_text import ANSI, AnyFormattedText, OneStyleAndTextTuple
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindingsBase
from prompt_toolkit.layout import ConditionalContainer, FormattedTextControl, HSplit, Layout, Window
from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput
from prompt_toolkit.output import Output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.styles import Style

from gemma_mlx.terminal.safe import visible_in_place

PROMPT = "> "
STYLE = Style.from_dict({"chip": "ansicyan", "status": "ansibrightblack", "question": "bold"})
REDRAW_S = 0.03
"""No two drawings of the application follow each other faster."""


def input_line(
    *,
    live: Callable[[], str],
    chips: Callable[[], list[str]],
    status: Callable[[], str],
    keys: KeyBindingsBase,
    completer: Completer,
    history: History,
    output: Output,
) -> PromptSession[str]:
    """An input line that is alive all the time. `live` gives styled text, `chips` and `status` plain lines."""
    session: PromptSession[str] = PromptSession(
        PROMPT,
        multiline=True,
        prompt_continuation=" " * len(PROMPT),
        complete_while_typing=False,
        reserve_space_for_menu=4,
        input_processors=[_Marks()],
        completer=completer,
        complete_in_thread=True,
        history=history,
        key_bindings=keys,
        enable_suspend=True,
        erase_when_done=True,
        style=STYLE,
        output=output,
    )
    application: Application[str] = session.app
    application.min_redraw_interval = REDRAW_S
    editor = application.layout.container
    application.layout.current_window.dont_extend_height = to_filter(True)
    rows = HSplit(
        [
            _part(lambda: ANSI(live()), lambda: bool(live())),
            _part(lambda: [("class:chip", "\n".join(chips()))], lambda: bool(chips())),
            editor,
            _part(lambda: [("class:status", status())], lambda: bool(status())),
            Window(),  # what a longer line or answer took and is free now stays below, not between
        ]
    )
    application.layout = Layout(rows, focused_element=session.default_buffer)
    return session


class _Marks(Processor):
    """Shows what a file's name may have brought into the line, and a terminal would obey, as marks; the text stays."""

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        shown = [(style, visible_in_place(text)) for style, text, *_ in transformation_input.fragments]
        return Transformation(list[OneStyleAndTextTuple](shown))


def terminal_output() -> Output:
    """Where the screen is drawn. The cursor's position is not asked for: a slow terminal answers into the input."""
    output = Vt100_Output.from_pty(sys.stdout)
    output.enable_cpr = False
    return output


def _part(text: Callable[[], AnyFormattedText], shown: Callable[[], bool]) -> ConditionalContainer:
    window = Window(FormattedTextControl(text), dont_extend_height=True, wrap_lines=False)
    return ConditionalContainer(window, Condition(shown) & ~is_done)
