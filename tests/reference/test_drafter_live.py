"""transformers' drafter, run live: other shapes than the stored ones, and the stored drafts made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import save_file  # noqa: E402
from transformers import Gemma4UnifiedAssistantForCausalLM  # noqa: E402

from gemma_mlx.config import read_config  # noqa: E402
from gemma_mlx.drafter_config import read_drafter_config  # noqa: E402
from gemma_mlx.drafter_weights import load_drafter  # noqa: E402
from gemma_mlx.home import miniature_folder  # noqa: E402
from gemma_mlx.weights import load_model  # noqa: E402
from tests.golden import make_drafts, make_golden  # noqa: E402
from tests.golden.cases import HERE, TINY  # noqa: E402
from tests.model.test_drafter import draft, read  # noqa: E402

pytestmark = pytest.mark.reference

TOLERANCE = 1e-4
ORDERED = {"use_ordered_embeddings": True, "num_centroids": 8, "centroid_intermediate_top_k": 2}
SHAPES: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"num_hidden_layers": 6}, {"num_hidden_layers": 1, "layer_types": ["full_attention"]}, {}),
    ({"num_hidden_layers": 6, "num_global_key_value_heads": 2, "sliding_window": 3}, {"num_attention_heads": 8}, {}),
    ({"num_hidden_layers": 6, "head_dim": 32, "global_head_dim": 64, "sliding_window": 16}, {}, ORDERED),
    ({"num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 1, "sliding_window": 5}, {}, {}),
    (
        {"num_hidden_layers": 6, "head_dim": 256, "global_head_dim": 512, "hidden_size": 128, "num_attention_heads": 2},
        {"num_attention_heads": 2},
        ORDERED,
    ),
]
"""What is changed in the target, in the drafter's layers, and in its head."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("seed", range(len(SHAPES)))
def test_other_shapes_give_the_references_drafts(tmp_path: Path, seed: int) -> None:
    """Contexts below, at and far beyond the window, in rounds over one cache."""
    target_text, drafter_text, head = SHAPES[seed]
    make_drafts.let_transformers_share()
    reference = make_golden.make_reference(seed, make_golden.reference_config(**target_text))
    drafting = make_drafts.make_drafter(seed, make_drafts.drafter_config(head, reference, **drafter_text))
    save_file(make_golden.released_tensors(reference), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(make_golden.released_config(reference.config)))
    make_drafts.write_drafter(drafting, tmp_path / "drafter")
    config = read_config(tmp_path)
    target = load_model(tmp_path, config, mx.float32)
    drafter = load_drafter(tmp_path / "drafter", tmp_path, config, target)

    window, offset, caches = config.text.sliding_window, 0, target.make_caches()
    text = make_drafts.make_text(seed, 12 * window + 2)
    for context in (1, window - 1, window, window + 1, window + 2, 3 * window, 3 * window + 2, 12 * window):
        hidden = read(target, caches, text[offset:context].tolist(), [7] * make_drafts.DEPTH)
        offset = context
        ids, found = draft(drafter, int(text[context]), hidden, caches)
        wanted = make_drafts.draft(reference, drafting, text[: context + 1])
        assert ids == wanted["ids"].tolist()
        for name, array in found.items():
            assert np.abs(array - wanted[name]).max() < TOLERANCE, (context, name)


def test_folder_that_transformers_saved_is_read_as_it_is(tmp_path: Path) -> None:
    config = read_config(TINY)
    model = load_model(TINY, config, mx.float32)
    for head, drafter in make_drafts.make_all()[1].items():
        drafter.save_pretrained(tmp_path / head)
        saved, stored = (read_drafter_config(folder / head) for folder in (tmp_path, HERE / "drafters"))
        assert saved.unknown_keys == ()
        assert saved == stored
        load_drafter(tmp_path / head, TINY, config, model)


def test_transformers_reads_the_miniatures_drafter() -> None:
    make_drafts.let_transformers_share()
    _, report = Gemma4UnifiedAssistantForCausalLM.from_pretrained(
        miniature_folder() / "drafter", dtype=torch.float32, output_loading_info=True
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_stored_drafts_are_those_of_this_reference() -> None:
    made, stored = (
        make_drafts.make_drafts(*make_drafts.make_all()),
        mx.load(str(HERE / "drafts.safetensors")),
    )
    assert isinstance(stored, dict)
    assert set(made) == set(stored)
    for name, array in made.items():
        assert np.abs(array.astype(np.float64) - np.array(stored[name], np.float64)).max() < 5e-5, name
