from __future__ import annotations

import base64
import copy
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer as Vocabulary

from gemma_mlx.errors import CheckpointError, InputError
from gemma_mlx.inputs.chat_format import ChatFormat
from gemma_mlx.inputs.image import ImagePatches, prepare_image
from gemma_mlx.inputs.prompt import Prompt, PromptBuilder
from gemma_mlx.inputs.waveform import frames, read_waveform
from tests.inputs.clips import clip, numbered, tone
from tests.inputs.small_checkpoint import SPECIALS, build_tokenizer

ROOT = Path(__file__).parents[2]
MINIATURE = ROOT / "assets" / "miniature"
GOLDEN_RENDERS = json.loads((ROOT / "tests" / "golden" / "chat_template_golden.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def builder(folder: Path) -> PromptBuilder:
    return PromptBuilder.from_folder(folder)


def picture_file(folder: Path, size: tuple[int, int] = (1024, 768), colour: str = "red") -> Path:
    path = folder / f"photo-{colour}.png"
    Image.new("RGB", size, colour).save(path)
    return path


def wav_bytes(samples: int = 1600) -> bytes:
    file = BytesIO()
    soundfile.write(file, np.linspace(-0.5, 0.5, samples, dtype=np.float32), 16_000, format="WAV")
    return file.getvalue()


def user(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}]


def seen(builder: PromptBuilder, prompt: Prompt) -> str:
    return builder.tokenizer.decode(prompt.ids, skip_special=False)


def control_tokens(builder: PromptBuilder, prompt: Prompt) -> list[str]:
    return [builder.tokenizer.decode([index], False) for index in prompt.ids if builder.tokenizer.is_silent(index)]


def test_text_prompt_is_the_rendered_template(builder: PromptBuilder) -> None:
    prompt = builder.build([{"role": "user", "content": " hello "}])
    assert seen(builder, prompt) == "<bos><|turn>user\nhello<turn|>\n<|turn>model\n"
    assert (prompt.spans, prompt.image_tokens, prompt.audio_tokens) == ((), 0, 0)
    assert len(prompt) == len(prompt.ids)


def test_ids_equal_the_reference_expansion_tokenised_whole(
    builder: PromptBuilder, folder: Path, tmp_path: Path
) -> None:
    image, audio = picture_file(tmp_path), wav_bytes(1601)
    prompt = builder.build(user({"type": "image", "image": image}, "what is", {"type": "audio", "audio": audio}))
    text = (
        "<bos><|turn>user\n<|image>" + "<|image|>" * 63 + "<image|>what is"
        "<|audio>" + "<|audio|>" * 3 + "<audio|><turn|>\n<|turn>model\n"
    )
    whole = Vocabulary.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    assert list(prompt.ids) == whole


def test_spans_point_at_soft_tokens_in_written_order(builder: PromptBuilder, tmp_path: Path) -> None:
    red = {"type": "image", "image": picture_file(tmp_path, (300, 100), "red")}
    blue = {"type": "image", "image": picture_file(tmp_path, (100, 300), "blue")}
    speech = {"type": "audio", "audio": wav_bytes()}
    prompt = builder.build([*user(red, "a"), {"role": "assistant", "content": "b"}, *user(speech, blue, "c", red)])
    assert [span.kind for span in prompt.spans] == ["image", "audio", "image", "image"]
    special = builder.tokenizer.special
    soft = {"image": special.image, "audio": special.audio}
    around = {
        "image": (special.image_open, special.image_close),
        "audio": (special.audio_open, special.audio_close),
    }
    for span in prompt.spans:
        stop = span.start + span.length
        assert set(prompt.ids[span.start : stop]) == {soft[span.kind]}
        assert (prompt.ids[span.start - 1], prompt.ids[stop]) == around[span.kind]
    first, sound, second, third = prompt.spans
    assert isinstance(first.media, ImagePatches)
    assert isinstance(second.media, ImagePatches)
    assert np.rint(first.media.patches[0, :3] * 255).tolist() == [255, 0, 0]
    assert np.rint(second.media.patches[0, :3] * 255).tolist() == [0, 0, 255]
    assert first.digest == third.digest != second.digest
    assert isinstance(sound.media, np.ndarray)
    assert np.array_equal(sound.media, frames(read_waveform(wav_bytes())))
    assert prompt.image_tokens == first.length + second.length + third.length
    assert prompt.audio_tokens == sound.length == 3


def test_labels_tell_name_size_and_tokens(builder: PromptBuilder, tmp_path: Path) -> None:
    path = tmp_path / "memo.wav"
    path.write_bytes(wav_bytes(16_000 * 2 + 1))
    parts = user({"type": "image", "image": picture_file(tmp_path)}, {"type": "audio", "audio": str(path)})
    prompt = builder.build(parts, max_soft_tokens=280)
    assert list(prompt.labels) == ["photo-red.png 1024x768 -> 266 tokens", "memo.wav 2.0 s -> 51 tokens"]


def test_default_budget_comes_from_the_checkpoint(builder: PromptBuilder, tmp_path: Path) -> None:
    path = picture_file(tmp_path)
    part = {"type": "image", "image": path}
    assert builder.build(user(part)).image_tokens == prepare_image(path, 70).soft_tokens == 63
    assert builder.build(user(part), max_soft_tokens=1120).image_tokens > 1000
    with pytest.raises(InputError, match="budget of 0 tokens"):
        builder.build(user(part), max_soft_tokens=0)


def test_a_label_names_it_as_the_part_does(builder: PromptBuilder, tmp_path: Path) -> None:
    picture, path = Image.new("RGB", (2560, 1600)), tmp_path / "file.png"
    picture.save(path)
    part = {"type": "image", "image": picture, "name": "screenshot"}
    assert builder.prepare(part, 1120).label == "screenshot 2560x1600 -> 1,092 tokens"
    assert builder.prepare({**part, "image": path}, 70).label.startswith("screenshot ")
    assert builder.prepare({"type": "image", "image": path}, 70).label.startswith("file.png ")
    samples = {"type": "audio", "audio": (np.zeros(16_000, dtype=np.float32), 16_000), "name": "recording"}
    assert builder.prepare(samples).label == "recording 1.0 s -> 25 tokens"


def test_prepared_media_keep_their_budget_and_are_not_read_again(builder: PromptBuilder, tmp_path: Path) -> None:
    path = picture_file(tmp_path)
    media = builder.prepare({"type": "image", "image": path}, max_soft_tokens=280)
    path.unlink()
    prompt = builder.build(user({"type": "image", "image": media}))
    assert prompt.spans[0].media is media.data
    assert prompt.labels[0] == media.label == "photo-red.png 1024x768 -> 266 tokens"
    with pytest.raises(InputError, match="prepared as image"):
        builder.build(user({"type": "audio", "audio": media}))


def test_every_form_of_a_picture_gives_the_same_digest(builder: PromptBuilder, tmp_path: Path) -> None:
    path = picture_file(tmp_path)
    data, image = path.read_bytes(), Image.open(path)
    encoded = base64.b64encode(data).decode()
    sources: list[Any] = [path, str(path), data, image, path.as_uri()]
    parts: list[dict[str, Any]] = [{"type": "image", "image": source} for source in sources]
    urls = [f"data:image/png;base64,{encoded}", str(path), path.as_uri(), f"file://localhost{path}"]
    parts += [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    assert len({builder.prepare(part).digest for part in parts}) == 1


def test_file_url_may_hold_escaped_spaces(builder: PromptBuilder, tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    path = picture_file(tmp_path / "a b")
    assert "%20" in path.as_uri()
    assert builder.prepare({"type": "image", "image": path.as_uri()}).label.startswith("photo-red.png ")


def test_every_form_of_a_sound_gives_the_same_digest(builder: PromptBuilder, tmp_path: Path) -> None:
    path = tmp_path / "memo.wav"
    path.write_bytes(wav_bytes())
    encoded = base64.b64encode(wav_bytes()).decode()
    sources = [path, str(path), wav_bytes(), (read_waveform(wav_bytes()), 16_000)]
    parts: list[dict[str, Any]] = [{"type": "audio", "audio": source} for source in sources]
    parts.append({"type": "input_audio", "input_audio": {"data": encoded, "format": "wav"}})
    assert len({builder.prepare(part).digest for part in parts}) == 1


TYPED = st.lists(st.one_of(st.sampled_from(SPECIALS), st.text("<|turnmage>\n ", max_size=9)), max_size=5).map("".join)


@settings(max_examples=150, deadline=None)
@given(system=TYPED, asked=st.lists(TYPED, min_size=1, max_size=3), argument=TYPED)
def test_typed_special_tokens_stay_text(builder: PromptBuilder, system: str, asked: list[str], argument: str) -> None:
    call = {"function": {"name": argument, "arguments": {argument: [argument]}}}
    messages = [
        {"role": "system", "content": system},
        *user(*asked),
        {"role": "assistant", "content": "answer", "tool_calls": [call]},
        {"role": "tool", "content": argument},
    ]
    plain = [
        {"role": "system", "content": "x"},
        *user("x"),
        {"role": "assistant", "content": "answer", "tool_calls": [{"function": {"name": "x", "arguments": {}}}]},
        {"role": "tool", "content": "x"},
    ]
    prompt = builder.build(messages)
    assert control_tokens(builder, prompt) == control_tokens(builder, builder.build(plain))
    assert seen(builder, prompt) == builder.chat_format.render(messages)


def test_typed_placeholder_is_no_picture(builder: PromptBuilder, tmp_path: Path) -> None:
    image = {"type": "image", "image": picture_file(tmp_path)}
    assert builder.build(user("what does <|image|> mean?")).spans == ()
    prompt = builder.build(user("not here: <|image|>", image))
    assert prompt.ids[prompt.spans[0].start - 2] != builder.tokenizer.special.image_open
    assert len(prompt.spans) == 1


def test_answer_that_spells_a_turn_stays_text_and_its_thoughts_are_stripped(builder: PromptBuilder) -> None:
    answer = "<|channel>thought\nsecret<channel|>The token <turn|> ends a turn."
    prompt = builder.build([*user("a"), {"role": "assistant", "content": answer}, *user("b")])
    assert "model\nThe token <turn|> ends a turn.<turn|>" in seen(builder, prompt)
    assert control_tokens(builder, prompt).count("<turn|>") == 3
    assert "<|channel>" not in control_tokens(builder, prompt)


@pytest.mark.parametrize(
    ("template", "claim"),
    [
        ("{{ '<|image|>' * 2 }}", "wrote 2 image placeholders for 1 attached; "),
        ("no placeholder", "wrote 0 image placeholders for 1 attached; "),
        ("<|image|><|audio|>", "wrote 1 audio placeholders for 0 attached; "),
    ],
)
def test_placeholders_must_match_the_media(builder: PromptBuilder, template: str, claim: str) -> None:
    other = PromptBuilder(builder.tokenizer, ChatFormat(template), 70)
    with pytest.raises(InputError, match=claim) as raised:
        other.build(user({"type": "image", "image": Image.new("RGB", (9, 9))}))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("part", "claim"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}, "is not fetched.*download it"),
        ({"type": "image", "image": "HTTP://example.com/a.png"}, "is not fetched"),
        ({"type": "image_url", "image_url": {"url": "file://elsewhere/a.png"}}, "another machine"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,@@"}}, "not base64"),
        ({"type": "image_url", "image_url": {"url": "data:image/png"}}, "without a comma"),
        ({"type": "image_url", "image_url": {}}, "holds nothing under 'image_url'"),
        ({"type": "input_audio", "input_audio": "x"}, "holds nothing under 'input_audio'"),
        ({"type": "input_audio", "input_audio": {"data": "!", "format": "wav"}}, "not base64"),
        ({"type": "image"}, "holds nothing under 'image'"),
        ({"type": "image", "image": 7}, "is int; attach a path"),
        ({"type": "audio", "audio": 7}, "is int; attach a path"),
        ({"type": "image", "image": b"text"}, "not a picture"),
        ({"type": "audio", "audio": b"text"}, "not a sound"),
        ({"type": "video", "video": b"text"}, "not a video"),
        ({"type": "video", "video": "https://example.com/a.mp4"}, "is not fetched"),
        ({"type": "video"}, "holds nothing under 'video'"),
        ({"type": "video", "sound": True}, "holds nothing under 'video'"),
        ({"type": "hologram"}, "type 'hologram'; use one of text, image"),
        ({"type": "text"}, "no string under 'text'"),
        ({"image": "a.png"}, "type None"),
    ],
)
def test_part_that_cannot_be_used_is_refused(builder: PromptBuilder, part: dict[str, Any], claim: str) -> None:
    with pytest.raises(InputError, match=claim) as raised:
        builder.build(user(part))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("messages", "claim"),
    [
        ([], "no messages"),
        ([{"role": "robot", "content": "hi"}], "role 'robot'; use one of system"),
        ([{"content": "hi"}], "role None"),
        ([{"role": "user", "content": 7}], "content of a message is int"),
        ([{"role": "user", "content": ["hi"]}], "type 'str'"),
        ([{"role": "assistant", "content": [{"type": "image", "image": "a.png"}]}], "attach media to a user message"),
        ([{"role": "user", "content": "hi", "note": {1, 2}}], "holds a set"),
        ([{"role": "user", "content": "caf\udce9"}], "not valid Unicode"),
    ],
)
def test_message_that_cannot_be_used_is_refused(
    builder: PromptBuilder, messages: list[dict[str, Any]], claim: str
) -> None:
    with pytest.raises(InputError, match=claim) as raised:
        builder.build(messages)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("config", "claim"),
    [
        ({"image_processor": {"patch_size": 14}}, "patches of 42 px"),
        ({"feature_extractor": {"sampling_rate": 48_000}}, "at 48000 Hz"),
        ({"feature_extractor": {"audio_samples_per_token": 320}}, "frames of 320 samples"),
        ({"image_processor": {"max_soft_tokens": 99}}, "asks for 99 tokens per picture"),
    ],
)
def test_checkpoint_that_processes_otherwise_is_refused(
    config: dict[str, Any], claim: str, folder: Path, tmp_path: Path
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "processor_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match=claim):
        PromptBuilder.from_folder(tmp_path)
    (tmp_path / "processor_config.json").unlink()
    assert PromptBuilder.from_folder(tmp_path).max_soft_tokens == 280


@pytest.mark.parametrize("name", GOLDEN_RENDERS)
def test_released_template_gives_the_ids_of_its_golden_render(name: str) -> None:
    asked = dict(GOLDEN_RENDERS[name]["input"])
    media = {"image": Image.new("RGB", (48, 48)), "audio": wav_bytes(640), "video": clip(numbered(1))}
    messages = copy.deepcopy(asked.pop("messages"))
    for message in messages:
        for part in message["content"] if isinstance(message.get("content"), list) else ():
            if part["type"] in media:
                part[part["type"]] = media[part["type"]]
    builder = PromptBuilder.from_folder(MINIATURE)
    prompt = builder.build(messages, thinking=asked.pop("enable_thinking", False), **asked)
    text = GOLDEN_RENDERS[name]["rendered"]
    for span in prompt.spans:
        soft, before, kind = f"<|{span.kind}|>", "", span.kind
        if span.kind == "video":
            before, kind = "00:00 ", "image"
        text = text.replace(soft, f"{before}<|{kind}>{soft * span.length}<{kind}|>")
    naive = Vocabulary.from_file(str(MINIATURE / "tokenizer.json"))
    assert list(prompt.ids) == naive.encode(text, add_special_tokens=False).ids


def test_video_is_written_as_the_reference_writes_it(builder: PromptBuilder) -> None:
    data = clip(numbered(75))
    prompt = builder.build(user("the", {"type": "video", "video": data, "frames": 3}, "hello"))
    frame = "<|image>" + "<|video|>" * 60 + "<image|>"
    written = f"<bos><|turn>user\nthe00:00 {frame} 00:00 {frame} 00:01 {frame}hello<turn|>\n<|turn>model\n"
    naive = build_tokenizer()
    assert list(prompt.ids) == naive.encode(written, add_special_tokens=False).ids
    assert [(span.kind, span.length) for span in prompt.spans] == [("video", 60)] * 3
    assert len({span.digest for span in prompt.spans}) == 3
    assert (prompt.video_tokens, prompt.image_tokens) == (180, 0)
    assert prompt.labels == ("video 96x64 2.5 s, 3 of 75 frames, one every 0.83 s -> 180 tokens",)


def test_two_videos_and_a_picture_keep_their_order(builder: PromptBuilder) -> None:
    first, second = (clip(numbered(30, side, 64)) for side in (64, 320))
    image = {"type": "image", "image": Image.new("RGB", (48, 48))}
    prompt = builder.build(user({"type": "video", "video": first}, image, {"type": "video", "video": second}))
    assert [span.kind for span in prompt.spans] == ["video", "image", "video"]
    assert [span.length for span in prompt.spans] == [64, 64, 54]


def test_sound_track_comes_at_the_end_of_the_message(builder: PromptBuilder, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip(numbered(30), sound=tone(1)))
    shown = {"type": "video", "video": path, "sound": True}
    prompt = builder.build(user(shown, "the"))
    assert [span.kind for span in prompt.spans] == ["video", "audio"]
    assert 25 <= prompt.audio_tokens <= 27
    assert prompt.labels[1] == f"clip.mp4 1.0 s -> {prompt.audio_tokens} tokens"
    with path.open("rb") as file:
        assert builder.build(user({**shown, "video": file}, "the")).ids == prompt.ids
    path.write_bytes(clip(numbered(30)))
    with pytest.raises(InputError, match=r"clip\.mp4 has no sound track"):
        builder.build(user(shown))


def test_long_sound_says_that_it_is_longer_than_what_was_trained(builder: PromptBuilder) -> None:
    media = builder.prepare({"type": "audio", "audio": (np.zeros(31 * 16_000, dtype=np.float32), 16_000)})
    assert media.label == "sound 31.0 s, longer than the 30 s that the model was trained on -> 775 tokens"


@pytest.mark.reference
def test_ids_equal_live_reference_tokenizer_and_expansion(builder: PromptBuilder, folder: Path) -> None:
    from types import SimpleNamespace
    from typing import cast

    from transformers import PreTrainedTokenizerFast
    from transformers.models.gemma4_unified.processing_gemma4_unified import Gemma4UnifiedProcessor

    names = {"boi_token": "<|image>", "image_token": "<|image|>", "eoi_token": "<image|>"}
    names |= {"boa_token": "<|audio>", "audio_token": "<|audio|>", "eoa_token": "<audio|>"}
    written = cast(Gemma4UnifiedProcessor, SimpleNamespace(**names))
    image = Gemma4UnifiedProcessor.replace_image_token(written, {"num_soft_tokens_per_image": [64]}, 0)
    audio = Gemma4UnifiedProcessor.replace_audio_token(written, {"input_features_mask": [np.ones(3, dtype=bool)]}, 0)
    messages = user(
        {"type": "image", "image": Image.new("RGB", (9, 9))}, "the", {"type": "audio", "audio": wav_bytes()}
    )
    shown = [{"role": "user", "content": [{"type": "image"}, messages[0]["content"][1], {"type": "audio"}]}]
    text = builder.chat_format.render(shown).replace("<|image|>", image).replace("<|audio|>", audio)
    reference = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    assert list(builder.build(messages).ids) == reference(text, add_special_tokens=False)["input_ids"]
