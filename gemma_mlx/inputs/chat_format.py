"""The checkpoint's own chat template: messages -> one string, rendered in jinja2's sandbox as transformers does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gemma_mlx.config import read_json
from gemma_mlx.errors import CheckpointError, InputError
from gemma_mlx.inputs.tokenizer import named_tokens

if TYPE_CHECKING:
    from jinja2 import Template


class ChatFormat:
    """A chat template, compiled. `fingerprint` tells two templates apart: the sha256 of the text, in hex."""

    def __init__(self, template: str, special_tokens: Mapping[str, str] | None = None) -> None:
        """`special_tokens` are names a template may write: `bos_token` and others of tokenizer_config.json.

        CheckpointError where the template is not valid jinja2.
        """
        self.fingerprint = hashlib.sha256(template.encode("utf-8")).hexdigest()
        self._special_tokens = dict(special_tokens or {"bos_token": "<bos>", "eos_token": "<eos>"})
        self._template = _compile(template)

    @classmethod
    def from_folder(cls, folder: Path) -> ChatFormat:
        """The template in chat_template.jinja, else in tokenizer_config.json. CheckpointError where both lack one."""
        config_path = folder / "tokenizer_config.json"
        config = read_json(config_path) if config_path.is_file() else {}
        path = folder / "chat_template.jinja"
        try:
            template = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            template = config.get("chat_template", "")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read {path} ({error}); copy it from the checkpoint again") from error
        if not isinstance(template, str) or not template:
            raise CheckpointError(f"{folder} has no chat_template.jinja; copy it from the instruction-tuned checkpoint")
        return cls(template, named_tokens(config))

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        thinking: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        preserve_thinking: bool = False,
    ) -> str:
        """The prompt's text, one placeholder per picture and sound. InputError where the template refuses or fails.

        `messages` and `tools` hold plain JSON values only; `PromptBuilder` makes them so.
        """
        from jinja2 import TemplateError

        try:
            return self._template.render(
                messages=list(messages),
                tools=list(tools) if tools else None,
                add_generation_prompt=add_generation_prompt,
                enable_thinking=thinking,
                preserve_thinking=preserve_thinking,
                **self._special_tokens,
            )
        except TemplateError as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise InputError(
                f"the chat template refused the messages: {reason}; change them to what it asks"
            ) from error
        except Exception as error:  # A template is a program: it can fail in any way.
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"the chat template failed ({reason}); check each message's role and content") from error


def _compile(template: str) -> Template:
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    try:
        return environment.from_string(template)
    except TemplateError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"the chat template is not valid ({reason}); copy it from the checkpoint again"
        ) from error


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """jinja2's own filter escapes HTML, which would reach the model."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)
