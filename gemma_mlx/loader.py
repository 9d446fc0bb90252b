"""From a folder to a `Gemma`: config, memory plan, tokenizer, weights, and what is laid over or beside them."""

from __future__ import annotations

import os
import warnings

import mlx.core as mx

from gemma_mlx.adapters.adapter import Adapter
from gemma_mlx.adapters.folder import read_adapter
from gemma_mlx.adapters.layers import place, require_mlx_lm
from gemma_mlx.checkpoint import fingerprint
from gemma_mlx.config import Config, read_config
from gemma_mlx.decoding.saved_session import Identity
from gemma_mlx.decoding.speculate import DraftMode
from gemma_mlx.draft_choice import drafter_to_load
from gemma_mlx.drafter_weights import load_drafter
from gemma_mlx.errors import GemmaWarning
from gemma_mlx.gemma import Gemma
from gemma_mlx.home import find_adapter, find_model
from gemma_mlx.inputs.prompt import PromptBuilder
from gemma_mlx.machine import Machine, this_machine
from gemma_mlx.memory import Planner, stored_numbers, weights_bytes
from gemma_mlx.model.gemma4 import Gemma4
from gemma_mlx.model.quantized_cache import check_kv_bits
from gemma_mlx.weights import computing_dtype, load_model


def load(
    folder: str | os.PathLike[str] | None = None,
    *,
    context_tokens: int | None = None,
    kv_bits: int | None = None,
    drafter: str | os.PathLike[str] | None = None,
    draft: DraftMode = "auto",
    adapter: str | os.PathLike[str] | None = None,
    dtype: mx.Dtype | None = None,
    machine: Machine | None = None,
) -> Gemma:
    """The model in `folder`, ready to answer; without a folder, the one that `gemma_mlx.home.find_model` chooses.

    Takes a folder in Google's released format or a converted one. Before any weight is read, the memory plan for
    `context_tokens` positions is made, by default for as many as fit this machine; prompts and answers stay within it.
    With `kv_bits` 8 the full layers' cache takes about half the bytes. Where `draft` ("auto", "mtp") wants a drafter,
    the one in `drafter` is loaded, or the one in the model's folder. With `adapter`, the folder of a LoRA or DoRA that
    mlx-lm or PEFT trained, the model answers with it; that takes mlx-lm. Raises ContextError if it does not fit, and
    GemmaError in one line if a folder cannot be used.
    """
    found = find_model(folder)
    config = read_config(found)
    check_kv_bits(config.text, kv_bits)
    if config.unknown_keys:
        keys = ", ".join(config.unknown_keys)
        warnings.warn(f"config.json of {found} says things unknown here: {keys}", GemmaWarning, stacklevel=2)
    dtype = dtype or computing_dtype()
    adapted = runnable_adapter(adapter, config)
    whole = adapted.whole if adapted else {}
    drafter_folder = drafter_to_load(found, drafter, draft)
    drafter_bytes = weights_bytes(stored_numbers(drafter_folder), dtype.size) if drafter_folder else 0
    planner = Planner(
        config,
        stored_numbers(found, whole),
        machine or this_machine(),
        dtype,
        kv_bits,
        drafter_bytes,
        adapted.nbytes(dtype.size) if adapted else 0,
    )
    plan = planner.require(context_tokens)
    prompts = PromptBuilder.from_folder(found)
    # Before the weights are read: what lies in the folder later may be another model.
    identity = Identity(
        fingerprint(found),
        prompts.chat_format.fingerprint,
        str(dtype).removeprefix("mlx.core."),
        adapted.digest if adapted else "",
    )
    with plan.limits():
        model = load_model(found, config, dtype, whole)
        if adapted:
            place(model, config.text, adapted)
        loaded_drafter = load_drafter(drafter_folder, found, config, model) if drafter_folder else None
    return Gemma(found, config, prompts, model, plan, identity, loaded_drafter)


def runnable_adapter(named: str | os.PathLike[str] | None, config: Config) -> Adapter | None:
    """The adapter in the folder `named`, once it is certain that it can be run over a model of `config`; None for None.

    No weight of the model is needed for that. Raises GemmaError in one line where it cannot be used, or without mlx-lm.
    """
    if named is None:
        return None
    adapter = read_adapter(find_adapter(named), Gemma4(config).shapes())
    require_mlx_lm()
    return adapter
