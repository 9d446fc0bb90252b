from __future__ import annotations

import pytest

from gemma_mlx.names import canonical_name, mlx_name


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("model.language_model.layers.5.self_attn.q_proj.weight", "language_model.layers.5.self_attn.q_proj.weight"),
        ("language_model.model.layers.5.self_attn.q_proj.weight", "language_model.layers.5.self_attn.q_proj.weight"),
        ("model.vision_embedder.patch_dense.bias", "vision_embedder.patch_dense.bias"),
        ("model.embed_vision.patch_dense.bias", "vision_embedder.patch_dense.bias"),
        ("model.embed_vision.pos_embedding", "vision_embedder.pos_embedding"),
        ("model.embed_vision.embedding_projection.weight", "embed_vision.embedding_projection.weight"),
        (
            "model.embed_vision.multimodal_embedder.embedding_projection.weight",
            "embed_vision.embedding_projection.weight",
        ),
        ("embed_audio.embedding_projection.weight", "embed_audio.embedding_projection.weight"),
    ],
)
def test_names_become_canonical(name: str, canonical: str) -> None:
    assert canonical_name(name) == canonical
    assert canonical_name(mlx_name(canonical)) == canonical
