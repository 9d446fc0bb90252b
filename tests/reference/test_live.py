"""The reference, run live: other shapes than the stored one, and the stored outputs made again."""

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
from transformers import Gemma4UnifiedForConditionalGeneration  # noqa: E402

from gemma_mlx.config import read_config  # noqa: E402
from gemma_mlx.model.masks import BlockSizes  # noqa: E402
from gemma_mlx.weights import load_model  # noqa: E402
from tests.golden import make_golden  # noqa: E402
from tests.golden.cases import TINY, Case, load_cases  # noqa: E402

pytestmark = pytest.mark.reference

TOLERANCE = 1e-4
SHAPES: list[dict[str, Any]] = [
    {"num_hidden_layers": 6, "num_global_key_value_heads": 2},
    {"num_hidden_layers": 6, "num_global_key_value_heads": 4, "num_key_value_heads": 4, "sliding_window": 3},
    {"num_hidden_layers": 6, "head_dim": 32, "global_head_dim": 64, "sliding_window": 16},
    {"num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 1, "sliding_window": 5},
    {"num_hidden_layers": 6, "layer_types": ["sliding_attention", "full_attention"] * 3, "sliding_window": 7},
    {"num_hidden_layers": 6, "head_dim": 256, "global_head_dim": 512, "hidden_size": 128, "num_attention_heads": 2},
    {"num_hidden_layers": 6, "final_logit_softcapping": None, "rms_norm_eps": 1e-5},
]
PROMPTS: list[list[make_golden.Part]] = [
    [3, make_golden.Picture(4, 3), 5, make_golden.Sound(6), 2, make_golden.Picture(2, 2), make_golden.Picture(1, 3), 6],
    [33],
]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def reference() -> Any:
    return make_golden.make_reference(make_golden.SEED, make_golden.reference_config())


def as_case(arrays: make_golden.Arrays) -> Case:
    media = [tuple(row) for row in arrays["media"].tolist()]
    return Case(arrays["ids"].tolist(), media, {name: mx.array(array) for name, array in arrays.items()})


@pytest.mark.parametrize("seed", range(len(SHAPES)))
def test_other_shapes_give_the_references_logits(tmp_path: Path, seed: int) -> None:
    model = make_golden.make_reference(seed, make_golden.reference_config(**SHAPES[seed]))
    save_file(make_golden.released_tensors(model), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(make_golden.released_config(model.config)))
    ours = load_model(tmp_path, read_config(tmp_path), mx.float32)
    for prompt in PROMPTS:
        arrays = make_golden.make_inputs(prompt, seed)
        wanted, case = make_golden.run_case(model, arrays)["logits"], as_case(arrays)
        for block_sizes in (BlockSizes(), BlockSizes(3, 4)):
            hidden = ours(case.embeddings(ours), ours.make_caches(), case.images, block_sizes)
            assert np.abs(np.array(ours.logits(hidden)[0]) - wanted).max() < TOLERANCE


def test_folder_that_transformers_saved_is_read_as_it_is(tmp_path: Path, reference: Any) -> None:
    reference.save_pretrained(tmp_path, max_shard_size="300KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    config = read_config(tmp_path)
    assert config.unknown_keys == ()
    ours, case = load_model(tmp_path, config, mx.float32), load_cases()["image_and_audio"]
    logits = np.array(ours.logits(ours(case.embeddings(ours), ours.make_caches(), case.images))[0])
    assert np.abs(logits - np.array(case.arrays["logits"])).max() < TOLERANCE


def test_transformers_reads_our_stored_folder_as_the_same_model(reference: Any) -> None:
    """So that tests/golden/tiny is spelled as Google's release is."""
    read, report = Gemma4UnifiedForConditionalGeneration.from_pretrained(
        TINY, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    state = reference.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in read.state_dict().items())


def test_stored_outputs_are_those_of_this_reference(reference: Any) -> None:
    made, stored = make_golden.make_cases(reference), mx.load(str(make_golden.HERE / "cases.safetensors"))
    assert isinstance(stored, dict)
    assert set(made) == set(stored)
    for name, array in made.items():
        assert array.shape == tuple(stored[name].shape), name
        assert np.abs(array.astype(np.float64) - np.array(stored[name], np.float64)).max(initial=0) < 5e-5, name


def test_stored_configs_are_those_of_this_reference(reference: Any) -> None:
    released = json.loads((TINY / "config.json").read_text())
    assert json.loads(json.dumps(make_golden.released_config(reference.config))) == released


def test_references_cache_changes_nothing_and_generate_says_the_same(reference: Any) -> None:
    cases = load_cases()
    case = cases["text"]
    assert np.abs(np.array(case.arrays["cached_logits"]) - np.array(case.arrays["logits"])).max() < 5e-5
    greedy = cases["greedy_text"]
    said = reference.generate(
        torch.tensor([greedy.ids]), max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert said[0, len(greedy.ids) :].tolist() == greedy.arrays["greedy"].tolist()
