"""How the simulator counts tokens.

Pictures and videos follow the published formula (contract 8.3.2, 8.3.3). Text follows a rule of the
simulator's own, because no vendor publishes one that can be recomputed by hand:

* input: 3 for the request, 4 for each message, and the UTF-8 bytes of each message's text divided by four,
  rounded up, and the same of the tools as JSON;
* output: a token is up to five printing characters with the white space before them.
"""

import math
import re
from collections.abc import Iterable
from typing import Final

from batchrun.simulator.models import Model

PER_REQUEST: Final = 3
PER_MESSAGE: Final = 4
BYTES_PER_TOKEN: Final = 4
HIGH_RESOLUTION_TOKENS: Final = 16_384
MARKS: Final = 2
"""One begin and one end mark around each picture or video."""

PIECE: Final = re.compile(r"\s*\S{1,5}|\s+")


def text_tokens(messages: Iterable[str]) -> int:
    """Input tokens of the texts, one string for each message."""
    count = PER_REQUEST
    for text in messages:
        size = len(text.encode("utf-8", "surrogatepass"))
        count += PER_MESSAGE + -(-size // BYTES_PER_TOKEN)
    return count


def described(tools: str) -> int:
    """Input tokens of the tools, which the model is told about as JSON."""
    return -(-len(tools.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def pieces(text: str) -> list[str]:
    """The text cut into output tokens; joined they give the text again."""
    return PIECE.findall(text)


def scaled(width: int, height: int, *, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Width and height in pixels after the service has scaled a picture (8.3.2)."""
    new_width, new_height = round(width / factor) * factor, round(height / factor) * factor
    if new_width * new_height > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        new_width = math.floor(width / shrink / factor) * factor
        new_height = math.floor(height / shrink / factor) * factor
    elif new_width * new_height < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        new_width = math.ceil(width * grow / factor) * factor
        new_height = math.ceil(height * grow / factor) * factor
    return max(new_width, factor), max(new_height, factor)


def picture_tokens(width: int, height: int, *, factor: int, min_pixels: int, max_pixels: int) -> int:
    new_width, new_height = scaled(width, height, factor=factor, min_pixels=min_pixels, max_pixels=max_pixels)
    return (new_width // factor) * (new_height // factor) + MARKS


def sampled_frames(*, frames: int, rate: float, fps: float, max_frames: int) -> int:
    """Number of frames taken from a video of `frames` frames at `rate` frames per second (8.3.3)."""
    duration = frames / rate
    if duration % 1 <= 1 / fps:
        duration = math.floor(duration)
    highest = min(max_frames, frames) // 2 * 2
    return min(int(min(max(duration * fps, 4), highest)), frames)


def video_tokens(width: int, height: int, frames: int, model: Model) -> int:
    """Tokens of a whole video, of which `frames` frames of this size are looked at (8.3.3)."""
    share = int(model.total_pixels / frames * 2)
    floor = int(4 * model.factor * model.factor * 1.05)
    highest = max(min(model.frame_pixels, share), floor)
    new_width, new_height = scaled(
        width,
        height,
        factor=model.factor,
        min_pixels=min(model.video_min_pixels, highest),
        max_pixels=highest,
    )
    grid = (new_width // model.factor) * (new_height // model.factor)
    return math.ceil(frames / 2) * grid + MARKS
