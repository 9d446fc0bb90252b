"""Each kind of bad input gives one line and an exit code, and nothing on stdout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import cast

import mlx.core as mx
import pytest

from gemma_mlx.home import miniature_folder
from tests.terminal.conftest import ChangedModel, Run


@pytest.mark.parametrize(
    ("flag", "file", "told"),
    [
        ("--image", "missing.png", "cannot open the picture"),
        ("--image", "empty.png", "is empty (0 bytes)"),
        ("--image", "text.png", "is not a picture"),
        ("--image", "cut.png", "damaged or cut short"),
        ("--image", "tone.wav", "is not a picture"),
        ("--audio", "missing.wav", "cannot open the sound"),
        ("--audio", "empty.png", "is empty (0 bytes)"),
        ("--audio", "silent.wav", "no samples"),
        ("--audio", "picture.png", "is not a sound"),
    ],
)
def test_a_medium_that_cannot_be_read_is_one_line(run: Run, media: Path, flag: str, file: str, told: str) -> None:
    ended = run("ask", "What?", flag, media / file)
    assert (ended.code, ended.out, len(ended.errors)) == (1, "", 1)
    assert told in ended.errors[0]
    assert file in ended.errors[0]


def test_a_web_address_is_not_fetched(run: Run) -> None:
    ended = run("ask", "What?", "--image", "https://example.com/a.png")
    assert (ended.code, ended.out) == (1, "")
    assert "not fetched" in ended.errors[0]


def test_an_error_under_json_is_an_object_on_stderr(run: Run, media: Path) -> None:
    ended = run("ask", "What?", "--image", media / "text.png", "--json")
    assert (ended.code, ended.out) == (1, "")
    assert "is not a picture" in json.loads(ended.err.splitlines()[-1])["error"]


def test_a_model_folder_that_does_not_exist_is_wrong_usage(run: Run) -> None:
    ended = run("ask", "Hello", "-m", "no/such/folder")
    assert (ended.code, ended.out) == (2, "")
    assert "no/such/folder" in ended.errors[0]


@pytest.mark.parametrize("verb", ["ask", "plan", "convert"])
def test_a_gguf_file_gets_what_to_use_instead(run: Run, tmp_path: Path, verb: str) -> None:
    file = tmp_path / "gemma-4-12b-it-Q4_K_M.gguf"
    file.write_bytes(b"GGUF")
    words = {
        "ask": ["ask", "Hello", "-m", file],
        "plan": ["plan", "-m", file],
        "convert": ["convert", file, tmp_path / "out"],
    }
    ended = run(*words[verb])
    assert (ended.code, ended.out, len(ended.errors)) == (2, "", 1)
    assert "is GGUF: llama.cpp and Ollama run it" in ended.errors[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["", "~nobody-of-this-name/model", "x" * 5000])
def test_a_name_that_is_no_folder_is_wrong_usage(run: Run, name: str) -> None:
    ended = run("ask", "Hello", "-m", name)
    assert (ended.code, ended.out, len(ended.errors)) == (2, "", 1)


def test_an_empty_question_about_pictures_is_wrong_usage(run: Run, media: Path) -> None:
    ended = run("caption", media / "picture.png", "--prompt", "")
    assert (ended.code, ended.out, len(ended.errors)) == (2, "", 1)


def test_another_architecture_is_named(run: Run, changed_model: ChangedModel) -> None:
    ended = run("ask", "Hello", "-m", changed_model("config.json", {"model_type": "llama"}))
    assert (ended.code, ended.out) == (1, "")
    assert "llama" in ended.errors[0]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("num_experts", 8, "num_experts"),
        ("hidden_size_per_layer_input", 256, "hidden_size_per_layer_input"),
        ("num_kv_shared_layers", 2, "num_kv_shared_layers"),
        ("rope_parameters.full_attention.rope_type", "yarn", "'yarn'"),
    ],
)
def test_what_the_architecture_does_not_do_is_named(
    run: Run, changed_model: ChangedModel, key: str, value: object, told: str
) -> None:
    ended = run("ask", "Hello", "-m", changed_model("config.json", {f"text_config.{key}": value}))
    assert (ended.code, ended.out, len(ended.errors)) == (1, "", 1)
    assert told in ended.errors[0]


@pytest.mark.parametrize("change", ["missing", "extra", "wrong shape", "NaN"])
def test_wrong_weights_are_one_line(run: Run, changed_model: ChangedModel, change: str) -> None:
    tensors = cast("dict[str, mx.array]", mx.load(str(miniature_folder() / "model.safetensors")))
    name = next(name for name in tensors if name.endswith("language_model.norm.weight"))
    if change == "missing":
        del tensors[name]
    elif change == "extra":
        tensors["lora.weight"] = mx.zeros((2,))
    elif change == "wrong shape":
        tensors[name] = tensors[name][:-1]
    else:
        tensors[name] = mx.full(tensors[name].shape, float("nan"), dtype=tensors[name].dtype)
    folder = changed_model("model.safetensors", "")
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    ended = run("ask", "Hello", "-m", folder)
    assert (ended.code, ended.out, len(ended.errors)) == (1, "", 1)


def test_a_folder_without_weights_is_one_line(run: Run, tmp_path: Path) -> None:
    shutil.copytree(miniature_folder(), tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    ended = run("ask", "Hello", "-m", tmp_path / "m")
    assert (ended.code, ended.out, len(ended.errors)) == (1, "", 1)


def test_a_prompt_over_the_context_is_one_line_with_the_figures(run: Run, changed_model: ChangedModel) -> None:
    folder = changed_model("config.json", {"text_config.max_position_embeddings": 64})
    ended = run("ask", "one two three " * 40, "-m", folder)
    assert (ended.code, ended.out) == (1, "")
    assert "context is 64" in ended.errors[0]


def test_an_answer_that_fills_the_context_says_so(run: Run, changed_model: ChangedModel) -> None:
    folder = changed_model("config.json", {"text_config.max_position_embeddings": 16})
    ended = run("ask", "Hello", "-m", folder)
    assert ended.code == 0
    assert "context is full" in ended.err


def test_a_template_that_fails_is_one_line(run: Run, changed_model: ChangedModel) -> None:
    ended = run("ask", "Hello", "-m", changed_model("chat_template.jinja", "{{ messages[0].content.no() }}"))
    assert (ended.code, ended.out, len(ended.errors)) == (1, "", 1)
    assert "template" in ended.errors[0]


def test_a_template_with_a_placeholder_too_many_is_one_line(run: Run, changed_model: ChangedModel) -> None:
    template = (miniature_folder() / "chat_template.jinja").read_text(encoding="utf-8")
    ended = run("ask", "Hello", "-m", changed_model("chat_template.jinja", template + "{{ '<|image|>' }}"))
    assert (ended.code, ended.out, len(ended.errors)) == (1, "", 1)
    assert "placeholder" in ended.errors[0]


def test_a_sound_without_channels_is_one_line(run: Run, media: Path, tmp_path: Path) -> None:
    wave = bytearray((media / "tone.wav").read_bytes())
    wave[22:24] = bytes(2)  # the number of channels in a RIFF header
    (tmp_path / "none.wav").write_bytes(wave)
    ended = run("ask", "What?", "--audio", tmp_path / "none.wav")
    assert (ended.code, ended.out, len(ended.errors)) == (1, "", 1)
    assert "none.wav" in ended.errors[0]


def test_stdin_that_is_no_text_is_one_line(run: Run) -> None:
    ended = run("ask", "What?", stdin=b"\x89PNG\r\n\xff")
    assert (ended.code, ended.out) == (1, "")
    assert "--image -" in ended.errors[0]


def test_an_empty_pipe_for_a_picture_is_one_line(run: Run) -> None:
    ended = run("ask", "What?", "--image", "-")
    assert (ended.code, ended.out) == (1, "")
    assert "stdin holds nothing" in ended.errors[0]


def test_control_bytes_of_a_file_name_do_not_reach_stderr(run: Run, media: Path) -> None:
    ended = run("ask", "What?", "--image", media / "\x1b]52;c;x\x07.png")
    assert "\x1b" not in ended.err
    assert "␛]52;c;x␇.png" in ended.errors[0]


def test_what_nobody_expected_is_one_line_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: object, **options: object) -> None:
        raise RuntimeError("no\nmemory")

    monkeypatch.setattr("gemma_mlx.loader.load", fail)
    ended = run("ask", "Hello")
    assert (ended.code, ended.out, len(ended.errors)) == (1, "", 1)
    assert "RuntimeError: no memory" in ended.errors[0]


def test_debug_shows_where_it_happened(run: Run, monkeypatch: pytest.MonkeyPatch, media: Path) -> None:
    from gemma_mlx.errors import InputError

    monkeypatch.setenv("GEMMA_MLX_DEBUG", "1")
    with pytest.raises(InputError, match="is not a picture"):
        run("ask", "What?", "--image", media / "text.png")
