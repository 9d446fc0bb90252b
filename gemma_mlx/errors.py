"""What can go wrong, told to a person.

Each message is one line: what was wrong, with the value shown, then what to do next. The command line prints it
and ends with `exit_code`; the library lets it propagate.
"""

from __future__ import annotations


class GemmaError(Exception):
    """Something could not be done. `exit_code` is what the command line ends with."""

    exit_code = 1


class CheckpointError(GemmaError):
    """A model folder cannot be used: another architecture, missing or wrong tensors, unreadable files."""


class InputError(GemmaError):
    """A picture, a sound or a message cannot be read or does not fit what it claims to be."""


class ContextError(GemmaError):
    """The prompt needs more positions than the model or the memory plan has."""


class UsageError(GemmaError):
    """What was asked for contradicts itself or has no effect; nothing was done."""

    exit_code = 2


class GemmaWarning(UserWarning):
    """Something is odd but the work goes on; the command line shows it as one line on stderr."""
