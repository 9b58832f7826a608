"""Clients of the native protocol, and what comes back over the socket."""

import json
import re
from dataclasses import dataclass
from typing import Any

from batchrun.simulator import BookRow, Running

from .raw import Client, Json, Raw, numbers

TEXT_PATH = "api/v1/services/aigc/text-generation/generation"
MULTIMODAL_PATH = "api/v1/services/aigc/multimodal-generation/generation"


class NativeClient(Client):
    """Without `stream` the answers are plain. Each request differs from all others by its text."""

    def __init__(
        self, simulator: Running, region: str = "singapore", *, path: str = MULTIMODAL_PATH, stream: bool = True
    ) -> None:
        super().__init__(simulator, region)
        self.path = path
        self.extra_headers = "X-DashScope-SSE: enable\r\n" if stream else ""

    def body(self, **parameters: object) -> Json:
        text = f"Request {next(numbers)} of the tests."
        content: object = text if self.path == TEXT_PATH else [{"text": text}]
        return {
            "model": "kimi-k2-thinking" if self.path == TEXT_PATH else "qwen3-vl-plus",
            "input": {"messages": [{"role": "user", "content": content}]},
            "parameters": parameters,
        }


def looking(*parts: Json, model: str = "qwen3-vl-plus", **parameters: object) -> Json:
    """A request with these parts, the same one each time."""
    return {
        "model": model,
        "input": {"messages": [{"role": "user", "content": [*parts, {"text": "Describe."}]}]},
        "parameters": parameters,
    }


@dataclass(frozen=True, kw_only=True)
class Frame:
    id: str
    event: str
    comment: str
    data: dict[str, Any]

    @property
    def message(self) -> dict[str, Any]:
        found: dict[str, Any] = self.data["output"]["choices"][0]["message"]
        return found

    @property
    def finish(self) -> object:
        return self.data["output"]["choices"][0].get("finish_reason")

    @property
    def text(self) -> str:
        content = self.message["content"]
        return content if isinstance(content, str) else "".join(part["text"] for part in content)


def frames(raw: Raw) -> list[Frame]:
    """The frames of an undisturbed stream; raise for anything else than the four lines of the contract."""
    found = []
    for block in raw.body.decode().removesuffix("\n\n").split("\n\n"):
        match = re.fullmatch(r"id:(.*)\nevent:(.*)\n(:HTTP_STATUS/\d+)\ndata:(\{.*\})", block)
        assert match, block
        found.append(Frame(id=match[1], event=match[2], comment=match[3], data=json.loads(match[4])))
    return found


def told(row: BookRow) -> tuple[int, int]:
    return row.billed.input, row.billed.output


def used(usage: dict[str, Any]) -> tuple[int, int]:
    return usage["input_tokens"], usage["output_tokens"]
