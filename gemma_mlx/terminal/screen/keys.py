"""What keys do beside editing the line."""

from __future__ import annotations

from typing import Protocol

from prompt_toolkit.application import get_app
from prompt_toolkit.filters import Condition, completion_is_selected, has_completions, is_searching
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys

from gemma_mlx.terminal.screen.asking import Asking


class Keyed(Protocol):
    """Who is told of keys that belong to the line."""

    def sent(self, text: str) -> None: ...
    def pasted(self, text: str) -> None: ...
    def interrupted(self, typed: str) -> bool: ...
    def removed(self) -> None: ...
    def leave(self) -> None: ...


def key_bindings(screen: Keyed, question: Asking) -> KeyBindings:
    """The keys of the chat. They go to `question` while it asks for them."""
    keys = KeyBindings()
    asking = Condition(lambda: question.for_keys)
    typing = ~asking & ~is_searching  # While history is searched, keys go to the search.
    empty = Condition(lambda: not get_app().current_buffer.text)

    @keys.add("enter", filter=typing & ~completion_is_selected)
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.current_line.endswith("\\") and buffer.document.is_cursor_at_the_end:
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
            return
        text = buffer.text
        buffer.append_to_history()
        buffer.reset()
        screen.sent(text)

    @keys.add("enter", filter=typing & completion_is_selected & has_completions)
    def _choose(event: KeyPressEvent) -> None:
        event.current_buffer.complete_state = None

    @keys.add("escape", "enter", filter=typing)
    @keys.add("c-j", filter=typing)
    def _begin_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add(Keys.BracketedPaste, filter=typing)
    def _paste(event: KeyPressEvent) -> None:
        screen.pasted(event.data.replace("\r\n", "\n").replace("\r", "\n"))

    @keys.add("backspace", filter=typing & empty)
    def _remove(event: KeyPressEvent) -> None:
        screen.removed()

    @keys.add("c-c", filter=~is_searching)
    def _interrupt(event: KeyPressEvent) -> None:
        if screen.interrupted(event.current_buffer.text):
            event.current_buffer.reset()

    @keys.add("c-d", filter=typing & empty)
    def _leave(event: KeyPressEvent) -> None:
        screen.leave()

    @keys.add("<any>", filter=asking)
    def _answer(event: KeyPressEvent) -> None:
        question.key(event.data)

    @keys.add(Keys.BracketedPaste, filter=asking)
    def _paste_elsewhere(event: KeyPressEvent) -> None:
        """It is no answer, and nobody looks at the line just now."""

    @keys.add("enter", filter=asking)
    def _enter(event: KeyPressEvent) -> None:
        question.key("enter")

    @keys.add("escape", filter=asking, eager=True)
    def _escape(event: KeyPressEvent) -> None:
        question.key("escape")

    return keys
