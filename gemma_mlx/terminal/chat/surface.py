"""What a command of the chat may do to the place where the chat is shown: a screen, or lines through a pipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from PIL import Image

    from gemma_mlx.answer import Reply
    from gemma_mlx.tasks.conversation import Conversation
    from gemma_mlx.terminal.chat.waiting import Message, Waiting

T = TypeVar("T")


class Surface(Protocol):
    """`note` and `say` take one line of any text and make it safe; a note is not said where all shall be quiet."""

    waiting: Waiting

    @property
    def last_reply(self) -> Reply | None:
        """The last answer in this chat since it was opened, with its figures; also one that was not kept."""
        ...

    device: int | None
    """The microphone to listen to; None for the system's."""

    async def conversation(self) -> Conversation:
        """The conversation, once the model is loaded."""
        ...

    @property
    def busy(self) -> bool:
        """Whether an answer is on its way."""
        ...

    @property
    def overtaking(self) -> bool:
        """Asked by a command: whether messages waited to be sent when it was typed."""
        ...

    def note(self, line: str) -> None: ...
    def say(self, line: str) -> None: ...
    def draw(self, picture: Image.Image) -> None:
        """Shows a small copy of `picture`, where the surface can."""
        ...

    def put(self, text: str) -> None:
        """Puts `text` into the input line."""
        ...

    def put_back(self, message: Message) -> None:
        """Makes a message that was not answered, or is to be changed, wait to be sent again."""
        ...

    async def ask_yes(self, question: str) -> bool:
        """Whether a person said yes."""
        ...

    def leave(self) -> None: ...
    async def turn(self) -> None:
        """To be awaited before a chip is added: what was typed before has what belongs to it then."""
        ...

    async def apart(self, job: Callable[[], T]) -> T:
        """What `job` returns; it reads files or waits for other programs, and never touches the model."""
        ...

    async def answer_again(self) -> None:
        """Asks the last message again."""
        ...

    async def record(self, way: str) -> None:
        """Listens to the microphone. `way`: "", "direct" or "dictate"."""
        ...

    async def change_chat(self, name: str | None) -> None:
        """Goes on with the chat called `name`; without a name, with a new one."""
        ...

    async def change_model(self, folder: str) -> None:
        """The model in `folder` answers from now on, in the same chat."""
        ...
