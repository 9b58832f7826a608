"""What the simulated model says: plausible sentences that follow from the request alone.

The words are picked by a hash of the seed and the request's contents, so the same request always gets the
same answer, streamed or plain, and the facts about pictures are the ones that really arrived.
"""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

from batchrun.simulator.contents import Contents
from batchrun.simulator.pictures import Picture
from batchrun.simulator.schemas import Scene, Seen, clock, sample
from batchrun.simulator.tokens import pieces
from batchrun.simulator.videos import Video
from batchrun.simulator.wishes import wanted_schema

ODDITIES: Final = " Odd characters: line\u2028separator, next\u0085line, paragraph\u2029end, 描述 é 👩‍👩‍👧 🎉."
LIGHT: Final = ("soft morning light", "flat grey light", "warm evening light", "hard midday light")
NOTES: Final = ("blue", "ochre", "deep green", "pale grey", "brick red", "off-white")
SUBJECTS: Final = (
    "a quiet street corner",
    "a table laid for two",
    "a harbour with small boats",
    "a shelf of folded cloth",
    "a hillside after rain",
    "a workshop bench",
)
DETAILS: Final = (
    "The foreground is sharp and the background falls away gently.",
    "A diagonal line leads the eye from the lower left to the centre.",
    "Two smaller shapes on the right balance the composition.",
    "Small marks of wear show that the place is used every day.",
    "Nothing in the scene is moving, and no lettering can be read.",
    "The edges are slightly darker than the middle.",
)
THOUGHTS: Final = (
    "First I look at what was really given to me.",
    "The size alone says something about how it was made.",
    "I should name the main thing before the details.",
    "The colours agree with the light, so I can mention both.",
    "There is no reason to guess at what cannot be seen.",
    "A short and exact answer will serve better than a long one.",
)
TIMED: Final = re.compile(r"HH:MM:SS|\d\d:\d\d:\d\d[ \t]*(?:-|–|-->)", re.IGNORECASE)
"""How prompts ask for lines with times."""
NOTE: Final = re.compile(
    r"(\d\d:\d\d:\d\d)[^\d\n]{1,20}(\d\d:\d\d:\d\d)(?:\", \"\w+\": \"|[ \t]+)([^\"\n]{1,300})", re.ASCII
)
"""A time range with what is said about it, as a line or as an object of JSON."""


class Dice:
    """An endless row of picks that depends on nothing but the hash."""

    def __init__(self, digest: bytes) -> None:
        self.bytes = itertools.cycle(digest)

    def pick(self, choices: Sequence[str]) -> str:
        return choices[next(self.bytes) % len(choices)]

    def several(self, choices: Sequence[str]) -> Iterator[str]:
        """All choices once, starting somewhere."""
        start = next(self.bytes) % len(choices)
        return itertools.chain(choices[start:], choices[:start])


def describe_picture(picture: Picture, dice: Dice) -> str:
    size = f"{picture.width} by {picture.height} pixel {picture.format} picture"
    return f"A {size} of {dice.pick(SUBJECTS)} in {dice.pick(LIGHT)}; its dominant note is {dice.pick(NOTES)}."


def describe_video(video: Video, dice: Dice) -> str:
    size = f"{video.width} by {video.height} pixel video of {video.seconds:.0f} seconds"
    return f"A {size} that stays with {dice.pick(SUBJECTS)} in {dice.pick(LIGHT)}."


def summary_text(notes: Sequence[tuple[str, str, str]]) -> str:
    lines = [f"- {start} - {end} {said.strip()}" for start, end, said in notes]
    return "\n".join(["A simulated summary of these notes:", "", *lines])


def describe_text(texts: Sequence[str]) -> str:
    words = re.findall(r"[A-Za-z]{3,20}", texts[-1][:4_000]) if texts else []
    topic = " ".join(words[:6]) or "nothing in particular"
    return f"You wrote about this: {topic}."


def answer_text(contents: Contents) -> str:
    """What is said where no form is demanded: what the prompt asks for, as far as it is understood."""
    wanted = wanted_schema(contents.texts)
    if wanted is not None:
        return as_json(sample(wanted, seen(contents)))
    if contents.pictures and contents.mentions("qwenvl markdown"):
        return page_text(contents)
    if contents.videos and any(TIMED.search(text) for text in contents.texts):
        return "\n".join(f"{clock(scene.start)} - {clock(scene.end)} {scene.text}" for scene in scenes(contents))
    if not contents.pictures and not contents.videos:
        notes = NOTE.findall(contents.texts[-1]) if contents.texts else []
        if len(notes) > 1:
            return summary_text(notes)
    return description(contents)


def description(contents: Contents) -> str:
    dice = Dice(contents.hash)
    sentences = [describe_picture(picture, dice) for picture in contents.pictures[:8]]
    sentences += [describe_video(video, dice) for video in contents.videos[:8]]
    if not sentences:
        sentences.append(describe_text(contents.texts))
    details = dice.several(DETAILS)
    sentences += itertools.islice(details, 1 + contents.hash[-1] % 3)
    return " ".join(sentences)


def page_text(contents: Contents) -> str:
    """A page as Markdown, with a table."""
    picture = contents.pictures[0]
    rows = [("Format", picture.format), ("Width", str(picture.width)), ("Height", str(picture.height))]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"# A simulated page\n\n{description(contents)}\n\n| Measure | Value |\n|---|---|\n{table}"


def scenes(contents: Contents) -> list[Scene]:
    """The first video cut into a few, whole seconds each; a minute where there is no video."""
    seconds = max(int(contents.videos[0].seconds), 1) if contents.videos else 60
    count = min(2 + contents.hash[0] % 3, max(seconds // 2, 1))
    dice = Dice(contents.hash)
    subjects, ends = dice.several(SUBJECTS), [seconds * number // count for number in range(count + 1)]
    return [
        Scene(start, end, f"A simulated scene: {subject} in {dice.pick(LIGHT)}.")
        for start, end, subject in zip(ends, ends[1:], subjects, strict=False)
    ]


def seen(contents: Contents) -> Seen:
    picture = contents.pictures[0] if contents.pictures else None
    return Seen(
        text=description(contents),
        label=Dice(contents.hash).pick(SUBJECTS),
        scenes=scenes(contents),
        width=1_000 if picture is None else picture.width,
        height=1_000 if picture is None else picture.height,
    )


def json_text(contents: Contents, schema: object) -> str:
    """For a request that demands JSON: by its schema, else by what the prompt asks for."""
    wanted = wanted_schema(contents.texts) if schema is None else schema
    if wanted is not None:
        value = sample(wanted, seen(contents))
        return as_json(value if schema is not None or isinstance(value, dict) else {"objects": value})
    document = {
        "caption": description(contents),
        "pictures": [{"width": p.width, "height": p.height, "format": p.format} for p in contents.pictures],
    }
    return json.dumps(document)


def arguments_text(contents: Contents, schema: object) -> str:
    """Arguments of a function, which are an object in any case."""
    arguments = sample(schema, seen(contents))
    return as_json(arguments if isinstance(arguments, dict) else {})


def as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def reasoning_text(contents: Contents) -> str:
    dice = Dice(contents.hash[::-1])
    count = 2 + contents.hash[0] % (len(THOUGHTS) - 1)
    return " ".join(itertools.islice(dice.several(THOUGHTS), count))


def exactly(text: str, tokens: int) -> list[str]:
    """So many tokens of the text, repeated as often as it takes."""
    return list(itertools.islice(itertools.cycle(pieces(text.rstrip() + " ")), tokens))
