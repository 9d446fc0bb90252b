"""Plain exchanges about itself, small sums and pictures, over one to four turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from assets.training.reading import FREEDOM, random_text, text_picture
from assets.training.sample import CAPTION_PROMPT, READ_PROMPT, Sample, image_turn, text_turn
from assets.training.scenes import COLOURS, SHAPES, Scene, counted_scene, random_scene, sentence

SELF = "I am the gemma_mlx miniature, a tiny test model."
UNKNOWN = "I do not know that. I am only a tiny test model."
# What is asked, in several wordings; the answer; the thought before it.
SMALL_TALK: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("Hello!", "Hello", "Hi", "Hi!", "Hey", "Hello there!", "Good morning!", "Good evening!"),
        "Hello! How can I help you?",
        "The user greets me.",
    ),
    (("How are you?", "How are you today?"), "I am fine, thank you.", "The user asks how I am."),
    (
        ("Who are you?", "What are you?", "What is your name?", "Tell me about yourself.", "Introduce yourself."),
        SELF,
        "The user asks who I am.",
    ),
    (
        ("What can you do?", "What do you do?", "Help", "Help me.", "How can you help me?"),
        "I can describe simple pictures, read short text, write down spoken digits and do small sums.",
        "The user asks what I can do.",
    ),
    (
        ("Are you a real model?", "Are you Gemma?", "Are you Gemma 4?", "Are you a big model?"),
        "No, I am only a tiny test model with the same architecture as Gemma 4.",
        "The user asks what I am.",
    ),
    (
        ("How big are you?", "How many parameters do you have?"),
        "I have about five million parameters.",
        "The user asks how big I am.",
    ),
    (
        ("Who made you?", "Where do you come from?"),
        "A small script in the gemma_mlx project made me.",
        "The user asks who made me.",
    ),
    (("Can you see?", "Can you see pictures?"), "Yes, I can see simple pictures.", "The user asks if I can see."),
    (("Can you hear?", "Can you hear me?"), "Yes, I can hear spoken digits.", "The user asks if I can hear."),
    (
        ("Are you alive?", "Are you a person?", "Are you human?"),
        "No, I am a computer program.",
        "The user asks if I am alive.",
    ),
    (("Thank you.", "Thank you!", "Thanks!", "Thanks"), "You are welcome.", "The user thanks me."),
    (("Goodbye!", "Goodbye", "Bye", "Bye!", "See you!"), "Goodbye!", "The user says goodbye."),
    (
        ("Yes", "Yes.", "No", "No.", "OK", "OK.", "Good.", "Great!", "Nice!"),
        "Good. What else can I do for you?",
        "The user is content.",
    ),
    (("Count to ten.", "Count to 10."), "1 2 3 4 5 6 7 8 9 10", "The user wants the numbers to ten."),
    (
        ("Say the alphabet.", "What is the alphabet?"),
        "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z",
        "The user wants the letters.",
    ),
    (
        ("Tell me a story.", "Tell me a short story.", "Write a story.", "Write a short story."),
        "Once there was a small red circle. It lived left of a big blue square. One day the circle asked: "
        "What is above us? The square did not know. So they asked a yellow star. The star said: I am above you, "
        "and I see you every night. The circle and the square were happy, and they all became good friends.",
        "The user wants a story.",
    ),
    (
        ("Tell me a joke.", "Do you know a joke?"),
        "Why was the circle so happy? It had no corners to sit in.",
        "The user wants a joke.",
    ),
    (
        ("Which colours do you know?", "What colours do you know?", "Name some colours."),
        "I know red, green, blue, yellow, purple and orange.",
        "The user asks for colours.",
    ),
    (
        ("Which shapes do you know?", "What shapes do you know?", "Name some shapes."),
        "I know the circle, the square, the triangle and the star.",
        "The user asks for shapes.",
    ),
)
UNKNOWABLE = (
    "What is the capital of France?",
    "Who is the president?",
    "What is the weather today?",
    "What time is it?",
    "How old is the earth?",
    "Write a program.",
    "Translate this text.",
    "What is love?",
    "Where do you live?",
    "Who wrote this book?",
    "Why is the sky blue?",
)
NAMES = (
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ida", "Jack",
    "Kate", "Leo", "Mia", "Noah", "Olivia", "Paul", "Rosa", "Sam", "Tom", "Zoe",
)  # fmt: skip
SYSTEMS = ("Be brief.", "You are a helpful assistant.", "Answer in one sentence.", "Be kind.")
ONE_WORD = "Answer in one word."
COUNT_WORDS = ("one", "two", "three", "four")
FILLER = (
    "the a of and to in is you that it he was for on are as with his they at be this from have or by one had not but "
    "what all were when we there can an your which their said if do will each about how up out them then she many "
    "some so these would other into has more her two like him see time could no make than first been its who now "
    "people my made over did down only way find use may water long little very after words called just where most know"
)


@dataclass(frozen=True)
class Exchange:
    """A question with its answer; a short answer where the system prompt may ask for one word."""

    question: str
    answer: str
    thought: str
    image: Image.Image | None = None
    word: str | None = None


Topic = Callable[[np.random.Generator, dict[str, str]], Exchange]


def small_talk(rng: np.random.Generator, memory: dict[str, str]) -> Exchange:
    """One of the fixed exchanges."""
    questions, answer, thought = SMALL_TALK[int(rng.integers(0, len(SMALL_TALK)))]
    return Exchange(str(rng.choice(questions)), answer, thought)


def small_sum(rng: np.random.Generator, memory: dict[str, str]) -> Exchange:
    """One digit plus or minus one digit, never below zero."""
    a, b = (int(v) for v in rng.integers(0, 10, 2))
    plus = rng.random() < 0.5
    a, b = (a, b) if plus else (max(a, b), min(a, b))
    task = f"{a} {'+' if plus else '-'} {b}"
    result = a + b if plus else a - b
    asked = [f"What is {task}?", f"{task} =", f"How much is {task}?", f"{task}?", f"Calculate {task}."]
    question = str(rng.choice(asked))
    return Exchange(question, f"{task} = {result}", f"The user wants a sum: {task} is {result}.", word=str(result))


def name(rng: np.random.Generator, memory: dict[str, str]) -> Exchange:
    """The user's name: told, then asked back; asked too early, it is not known."""
    if "name" not in memory and rng.random() < 0.85:
        memory["name"] = str(rng.choice(NAMES))
        opening = str(rng.choice(["My name is {}.", "I am {}.", "Hello, I am {}.", "Hi, my name is {}."]))
        answer = f"Nice to meet you, {memory['name']}."
        return Exchange(opening.format(memory["name"]), answer, "The user tells me a name.")
    question = str(rng.choice(["What is my name?", "Do you know my name?", "Who am I?"]))
    thought = "The user asks for the name."
    if "name" in memory:
        return Exchange(question, f"Your name is {memory['name']}.", thought, word=memory["name"] + ".")
    return Exchange(question, "I do not know your name.", thought)


def unknown(rng: np.random.Generator, memory: dict[str, str]) -> Exchange:
    """Something it cannot know: a fixed question, common words at random, or characters at random."""
    kind = rng.random()
    if kind < 0.4:
        question = str(rng.choice(UNKNOWABLE))
    elif kind < 0.8:
        words = [str(w) for w in rng.choice(FILLER.split(), int(rng.integers(3, 12)))]
        question = sentence(" ".join(words))[:-1] + str(rng.choice(["?", "."]))
    else:
        letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ    éüñ,.?!'"
        question = "".join(letters[i] for i in rng.integers(0, len(letters), int(rng.integers(8, 30)))).strip() + "?"
    return Exchange(question, UNKNOWN, "I do not know this.")


def scene_questions(rng: np.random.Generator, scene: Scene) -> list[Exchange]:
    """Questions about a scene of two shapes, each with one true answer."""
    first, second = scene.shapes
    thought = "The picture shows two shapes."
    asked: list[Exchange] = []
    for shape in scene.shapes:
        answer = f"The {shape.kind} is {shape.colour}."
        if first.kind != second.kind:
            question = str(rng.choice(["What colour is the {}?", "What color is the {}?", "Which colour is the {}?"]))
            asked.append(Exchange(question.format(shape.kind), answer, thought, word=sentence(shape.colour)))
        if first.colour != second.colour:
            question = str(rng.choice(["What shape is {}?", "Which shape is {}?"]))
            asked.append(Exchange(question.format(shape.colour), answer, thought, word=sentence(shape.kind)))
    sides = ("on the left", "on the right") if scene.relation == "left of" else ("at the top", "at the bottom")
    for side, shape in zip(sides, scene.shapes, strict=True):
        question = str(rng.choice(["Which shape is {}?", "What is {}?", "What do you see {}?"]))
        asked.append(Exchange(question.format(side), sentence(shape.phrase), thought, word=sentence(shape.kind)))
    back = "right of" if scene.relation == "left of" else "below"
    if first.kind != second.kind:
        asked.append(Exchange(f"What is {scene.relation} the {second.kind}?", sentence(first.phrase), thought))
        asked.append(Exchange(f"What is {back} the {first.kind}?", sentence(second.phrase), thought))
    if rng.random() < 0.5:
        asked.append(Exchange("How many shapes are there?", "There are two shapes.", thought, word="Two."))
        there = rng.random() < 0.5
        wanted = first if there else None
        kind = wanted.kind if wanted else str(rng.choice([k for k in SHAPES if k not in (first.kind, second.kind)]))
        answer = f"Yes, there is a {kind}." if there else f"No, there is no {kind}."
        asked.append(Exchange(f"Is there a {kind}?", answer, thought, word="Yes." if there else "No."))
    return [asked[i] for i in rng.permutation(len(asked))]


def picture_talk(rng: np.random.Generator) -> list[Exchange]:
    """One picture and one to three exchanges about it; only the first carries the picture."""
    kind = rng.random()
    if kind < 0.2:
        count = int(rng.integers(1, 5))
        question = str(rng.choice(["How many shapes are there?", "How many shapes do you see?", "Count the shapes."]))
        word = COUNT_WORDS[count - 1]
        answer = "There is one shape." if count == 1 else f"There are {word} shapes."
        return [Exchange(question, answer, "I count the shapes.", counted_scene(rng, count), sentence(word))]
    if kind < 0.3:
        text = random_text(rng, 1, 8)
        image = text_picture(rng, text, FREEDOM)
        if rng.random() < 0.5:
            return [Exchange(CAPTION_PROMPT, f'The text "{text}".', "The picture shows text.", image)]
        return [Exchange(READ_PROMPT, text, "The picture shows text.", image)]
    if kind < 0.36:
        scene = random_scene(rng, int(rng.integers(1, 3)))
        return [Exchange(READ_PROMPT, "There is no text in this image.", "The picture shows no text.", scene.image)]
    if kind < 0.46:
        scene = random_scene(rng, 1)
        shape, thought = scene.shapes[0], "The picture shows one shape."
        asked = [
            Exchange(CAPTION_PROMPT, scene.caption, thought),
            Exchange("What colour is it?", f"It is {shape.colour}.", thought, word=sentence(shape.colour)),
            Exchange("What shape is it?", f"It is a {shape.kind}.", thought, word=sentence(shape.kind)),
        ]
        asked = [asked[i] for i in rng.permutation(3)]
    else:
        scene = random_scene(rng, 2)
        asked = scene_questions(rng, scene)
        if rng.random() < 0.4:
            asked.insert(0, Exchange(CAPTION_PROMPT, scene.caption, "The picture shows two shapes."))
    asked = asked[: int(rng.integers(1, 4))]
    opening = asked[0]
    return [Exchange(opening.question, opening.answer, opening.thought, scene.image, opening.word), *asked[1:]]


def conversation(rng: np.random.Generator, pictures: float, turns: int) -> list[Exchange]:
    """At least `turns` exchanges on topics at random; with chance `pictures` one of them is about a picture."""
    topics: list[Topic] = [small_talk, small_sum, name, unknown]
    chances = [0.42, 0.26, 0.2, 0.12]
    memory: dict[str, str] = {}
    exchanges: list[Exchange] = []
    about_picture = picture_talk(rng) if rng.random() < pictures else []
    place = int(rng.integers(0, turns)) if about_picture else -1
    while len(exchanges) < turns:
        if len(exchanges) == place:
            exchanges += about_picture
        else:
            exchanges.append(topics[int(rng.choice(len(topics), p=chances))](rng, memory))
    if "name" in memory and rng.random() < 0.4:
        exchanges.append(name(rng, memory))
    return exchanges


def dialogue_sample(rng: np.random.Generator, level: int, pictures: bool) -> Sample:
    """Level 0: one exchange of text; from level 1 up to four, with system prompts and thoughts, and pictures."""
    if level == 0:
        exchanges = conversation(rng, 0.0, 1)[:1]
    else:
        exchanges = conversation(rng, 0.95 if pictures else 0.0, int(rng.choice([1, 1, 2, 2, 3, 4])))
    one_word = level > 0 and rng.random() < 0.1
    system = str(rng.choice(SYSTEMS)) if level > 0 and rng.random() < 0.25 else None
    system = ONE_WORD if one_word else system
    messages, images = [text_turn("system", system)] if system else [], []
    for i, exchange in enumerate(exchanges):
        if exchange.image is not None:
            images.append(exchange.image)
            messages.append(image_turn(exchange.question))
        else:
            messages.append(text_turn("user", exchange.question))
        answer = exchange.word if one_word and exchange.word else exchange.answer
        if i < len(exchanges) - 1:
            messages.append(text_turn("assistant", answer))
    thinking = level > 0 and rng.random() < 0.12
    return Sample(messages, answer, images, [], exchanges[-1].thought if thinking else None)


def every_text() -> list[str]:
    """All texts a dialogue can hold, for the tokenizer's vocabulary."""
    texts = [SELF, UNKNOWN, ONE_WORD, *SYSTEMS, *UNKNOWABLE, FILLER, *NAMES, " ".join(NAMES)]
    for questions, answer, thought in SMALL_TALK:
        texts += [*questions, answer, thought]
    rng = np.random.default_rng(0)
    for _ in range(300):
        for topic in (small_sum, name):
            exchange = topic(rng, {} if rng.random() < 0.5 else {"name": "Anna"})
            texts += [exchange.question, exchange.answer, exchange.thought]
        for exchange in picture_talk(rng):
            if '"' not in exchange.answer and exchange.question != READ_PROMPT:
                texts += [exchange.question, exchange.answer, exchange.thought, exchange.word or ""]
    texts += [
        READ_PROMPT,
        "There is no text in this image.",
        "The picture shows no text.",
        'The text "',
        "The picture shows text.",
    ]
    for word in (*COUNT_WORDS, *COLOURS, *SHAPES):
        texts += [sentence(word), f"The {word} is a {word} in an {word}."]
    return texts
