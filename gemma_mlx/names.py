"""What a tensor or module is called: each of the spellings that are in the wild, and one of our own."""

from __future__ import annotations


def canonical_name(name: str) -> str:
    """The path of tensor or module `name` in our modules, from any of the spellings that are in the wild.

    ================================================================  ===========================================
    on disk (Google)          model.vision_embedder.patch_dense.weight  vision_embedder.patch_dense.weight
    transformers' modules     model.embed_vision.patch_dense.weight     vision_embedder.patch_dense.weight
    MLX                       language_model.model.norm.weight          language_model.norm.weight
    ================================================================  ===========================================
    """
    name = name.removeprefix("model.")
    name = name.replace("language_model.model.", "language_model.", 1)
    name = name.replace("embed_vision.multimodal_embedder.", "embed_vision.", 1)
    inside_vision = ("patch_ln1", "patch_dense", "patch_ln2", "pos_embedding", "pos_norm")
    if name.startswith("embed_vision.") and name.split(".")[1] in inside_vision:
        name = name.replace("embed_vision.", "vision_embedder.", 1)
    return name


def mlx_name(canonical: str) -> str:
    """The name under which MLX folders (mlx-vlm, LM Studio, ours) store the tensor with this canonical name."""
    return canonical.replace("language_model.", "language_model.model.", 1)
