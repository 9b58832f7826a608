"""What a job file says, as checked values. `jobfile` reads the file; from there on the types are trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticKnownError

from batchrun.jobfile.asking import Messages, MessageSpec, OnInvalid, ResponseSchema, ToolChoice, ToolList, tool_names
from batchrun.jobfile.quantities import refusal
from batchrun.jobfile.sections import (
    BATCH_CHAT,
    BudgetSpec,
    InputKind,
    InputsSpec,
    LimitsSpec,
    MediaSpec,
    Mode,
    OutputSpec,
    ParamsSpec,
    Priority,
    RetrySpec,
    Section,
    Text,
    ThinkingSpec,
    TimeoutsSpec,
    WindowSpec,
    parsed,
)

__all__ = [
    "BudgetSpec",
    "InputKind",
    "InputsSpec",
    "JobFile",
    "JobSpec",
    "JobsDocument",
    "LimitsSpec",
    "MediaSpec",
    "MessageSpec",
    "OutputSpec",
    "ParamsSpec",
    "RetrySpec",
    "ThinkingSpec",
    "TimeoutsSpec",
    "WindowSpec",
    "differences",
    "stored_spec",
]


OF_A_REQUEST = ("system", "messages", "prompt", "parameters", "thinking", "response_schema", "tools", "output")
"""Fields that a job of whole requests doesn't have."""
HOW_MEDIA_TRAVEL = ("check_urls", "upload")
"""Fields of `media` that ask nothing else of the model."""
MERGE_PROMPT = """\
Below is what was said about each part of the video {{ filename }}, which lasts {{ end }}. \
Each answer stands below the times of its part.

Write one summary of the whole video in Markdown: first what it is about, in a few sentences; then its sections in \
their order, each under a heading with its times in the whole video, as HH:MM:SS - HH:MM:SS. \
Use only what stands below, and don't mention the parts.

{{ answers }}
"""
"""What merges the answers about the parts of a video where the job doesn't say."""
ASKED_LATER = ("messages", "response_schema", "tools", "tool_choice")
"""Parts of the identity of those jobs that have them."""


class JobSpec(Section):
    """One job: the same prompt for many items, each of them one call; or a file of whole requests."""

    LATER = frozenset(["depends_on"])
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
    """What the other commands call it. Loading a job of the same name again adds what is new to it."""
    provider: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}(/[A-Za-z0-9._-]{1,100}){0,2}$")]
    """Provider and region of the catalogue; `batchrun models` lists them. The simulator costs nothing."""
    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}$")]
    """The vendor's name of the model; `batchrun models` lists them."""
    mode: Mode = "online"
    """How the calls are made. `batch-chat`: by a vendor's service at half the price that takes up to an hour for each
    answer and has few models; `provider` stays the same. It may be changed while no call of the job is in flight."""
    inputs: InputsSpec
    system: Text | None = None
    """The system message; a template like the prompt."""
    messages: Messages | None = None
    """A conversation instead of `system` and `prompt`, such as examples in front of the question: a list of `role` and
    `content`. It ends with the user, and the item's pictures stand in that last message, before its text."""
    prompt: Text | None = Field(default=None, validate_default=True)
    """What is asked of each item: a template, in which `{{ name }}` is replaced by the item's own value. Must be there,
    except with `messages`, or with `inputs.requests`, whose lines are whole requests."""
    parameters: ParamsSpec = Field(default_factory=ParamsSpec, alias="params")
    thinking: ThinkingSpec | None = None
    response_schema: ResponseSchema | None = None
    """The form of the answers: a JSON Schema, or the path of a .json file with one. It is sent where the model takes
    it. Every answer is checked by it, and what it says stands in `parsed` then, beside the text."""
    on_invalid: OnInvalid = "keep"
    """What becomes of an item whose answer doesn't fit the schema. What was paid for stays stored. `keep` ends the item
    as done, without `parsed`; `fail` as failed; `ask_again` buys another answer, `retry.attempts` in all."""
    tools: ToolList | None = None
    """Functions that the model may call, in OpenAI's form. Nothing is called here: the calls that it asks for stand in
    `tool_calls`."""
    tool_choice: ToolChoice | None = None
    """Whether it may, must or must not call one: auto, none, required, or a function's name in OpenAI's form."""
    stream: bool = True
    """Whether answers come in pieces as they are made. Turn it off only for a server that can't; it is off with
    `mode: batch-chat`."""
    media: MediaSpec = Field(default_factory=MediaSpec)
    merge_prompt: Text | None = None
    """What is asked of the model when all parts of a video have their answers, with `media.split`: a template, in which
    `{{ answers }}` stands for them, each below its times, beside the variables of the prompt (but not `part`). Without
    it, a summary in Markdown with times. The answer has the path of the video as its id; no media are sent along, no
    tools and no schema."""
    limits: LimitsSpec = Field(default_factory=LimitsSpec)
    retry: RetrySpec = Field(default_factory=RetrySpec)
    on_incomplete: Literal["retry", "continue"] = "retry"
    """What the next try does after an answer that broke off in the middle: `retry` asks anew, `continue` sends what has
    arrived along, and the model writes on, for as much of `max_tokens` as is certainly left; where that is nothing or
    too little, it asks anew. Only for models with partial mode, and where they don't think."""
    on_truncated: Literal["keep", "continue"] = "keep"
    """The same for an answer that `max_tokens` cut: `keep` ends the item as `truncated`, `continue` asks for the rest,
    as often as `retry.attempts` allows. `max_tokens` then bounds each call, and no longer the whole answer."""
    deduplicate: bool = True
    """Whether items with the same request and the same pictures share one answer, bought once. Turn it off where
    several different answers to one question are wanted, as with a high temperature."""
    timeouts: TimeoutsSpec = Field(default_factory=TimeoutsSpec)
    budget: BudgetSpec | None = None
    window: WindowSpec | None = None
    output: OutputSpec | None = None
    tags: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[^\s,\x00-\x1f]([^,\x00-\x1f]{0,98}[^\s,\x00-\x1f])?$")], ...],
        Field(strict=False, max_length=100),
    ] = ()
    """Words of your own about the job."""
    priority: Priority = 0
    """Jobs of higher priority go first."""

    @model_validator(mode="before")
    @classmethod
    def _held(cls, said: object) -> object:
        """`stream` has another default in batch chat."""
        return {"stream": False, **said} if isinstance(said, dict) and said.get("mode") == BATCH_CHAT else said

    @field_validator("system", "prompt")
    @classmethod
    def _is_template(cls, source: str | None) -> str | None:
        if source is not None:
            parsed(source)
        return source

    @field_validator(*OF_A_REQUEST)
    @classmethod
    def _not_beside_requests(cls, value: object, info: ValidationInfo) -> object:
        inputs = info.data.get("inputs")
        if not isinstance(inputs, InputsSpec) or inputs.kind != "requests":
            return cls._once(value, info)
        if value is None or (isinstance(value, ParamsSpec) and not value.sent()):
            return value
        raise refusal(*_beside_requests(str(info.field_name)))

    @classmethod
    def _once(cls, value: object, info: ValidationInfo) -> object:
        """Either messages or a prompt, and not neither; what was refused isn't complained about twice."""
        name, said = info.field_name, info.data
        has_messages = "messages" not in said or said["messages"] is not None
        if name == "prompt" and value is None and not has_messages:
            raise PydanticKnownError("missing")
        if name == "prompt" and value is not None and said.get("messages") is not None:
            raise refusal(
                "the job has messages, which say what is asked", "Delete one; `prompt: null` takes a default back"
            )
        if name == "messages" and value is not None and said.get("system") is not None:
            raise refusal("the job has a system message beside them", "Make it the first message, of `role: system`")
        return value

    @field_validator("stream")
    @classmethod
    def _not_held(cls, stream: bool, info: ValidationInfo) -> bool:
        if stream and info.data.get("mode") == BATCH_CHAT:
            raise refusal(f"`mode: {BATCH_CHAT}` doesn't stream: an answer comes as a whole", "Delete `stream`")
        return stream

    @field_validator("merge_prompt")
    @classmethod
    def _merges_answers(cls, source: str | None, info: ValidationInfo) -> str | None:
        media = info.data.get("media")
        if source is None:
            return None
        if isinstance(media, MediaSpec) and media.split is None:
            raise refusal("there is nothing to merge without `media.split`", "Add it, or delete `merge_prompt`")
        if "answers" not in parsed(source).names:
            raise refusal("the answers about the parts are missing", "Write `{{ answers }}` where they are to stand")
        return source

    @field_validator("media")
    @classmethod
    def _splits_videos(cls, media: MediaSpec, info: ValidationInfo) -> MediaSpec:
        inputs = info.data.get("inputs")
        if media.split is not None and isinstance(inputs, InputsSpec) and inputs.kind in ("images", "requests"):
            raise refusal(f"there are no videos to split in `inputs.{inputs.kind}`", "Delete `split`")
        return media

    @field_validator("tool_choice")
    @classmethod
    def _of_a_tool(cls, choice: str | dict[str, JsonValue] | None, info: ValidationInfo) -> object:
        tools = info.data.get("tools")
        if choice is None or "tools" not in info.data:
            return choice
        if tools is None:
            raise refusal("there are no tools to choose from", "Write `tools`, or delete it")
        named = tool_names([choice]) if isinstance(choice, dict) else []
        if not set(named) <= set(tool_names(tools)):
            raise refusal(f"no tool is called {named[0]}", "Name one of `tools`")
        return choice

    @field_validator("response_schema")
    @classmethod
    def _not_in_extra(cls, value: object, info: ValidationInfo) -> object:
        parameters = info.data.get("parameters")
        if value is not None and isinstance(parameters, ParamsSpec) and "response_format" in parameters.extra:
            raise refusal("`params.extra.response_format` asks for another form", "Delete one of them")
        return value

    @property
    def params(self) -> Mapping[str, JsonValue]:
        """The parameters that are sent, those under `extra` included."""
        return self.parameters.sent()

    @property
    def merging(self) -> str | None:
        """The prompt that merges the answers about the parts of a video; None where no video is split."""
        return None if self.media.split is None else self.merge_prompt or MERGE_PROMPT

    def identity(self) -> dict[str, JsonValue]:
        """What makes an answer of this job the answer to this request; all else may change while the job runs.

        Plain JSON values. `mode`, `stream`, limits, retry, timeouts, budget, window, output, tags and priority aren't
        part of it, nor what of `media` says how files travel.
        """
        parts = self.model_dump(mode="json", include={"provider", "model", "system", "prompt", "thinking"})
        parts["media"] = self.media.model_dump(mode="json", exclude_defaults=True, exclude={*HOW_MEDIA_TRAVEL})
        dumped = self.model_dump(mode="json", include={*ASKED_LATER})
        added = {name: value for name, value in dumped.items() if value is not None}
        merged = {} if self.merging is None else {"merge_prompt": self.merging}
        return {**parts, **added, **merged, "params": dict(self.params)}

    def snapshot(self) -> dict[str, JsonValue]:
        """The whole job as plain JSON values; `JobSpec.model_validate` makes an equal job of it."""
        snapshot: dict[str, JsonValue] = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return snapshot


def _beside_requests(field: str) -> tuple[str, str]:
    if field == "output":
        remedy = "Delete it; `batchrun export JOB --format openai` writes the answers in the form of the requests"
        return "the answers to whole requests aren't written beside pictures", remedy
    name = "params" if field == "parameters" else field
    return "each line of `inputs.requests` is a whole request", f"Delete it; `{name}: null` takes a default back"


def stored_spec(snapshot: Mapping[str, JsonValue]) -> JobSpec:
    """The job as it was loaded, from the snapshot in its row, which also holds the folder of the job file."""
    return JobSpec.model_validate({key: value for key, value in snapshot.items() if key != "base"})


class JobsDocument(Section):
    """The file as a whole, after `defaults` went into the jobs."""

    version: Literal[1]
    """Of this format."""
    jobs: Annotated[tuple[JobSpec, ...], Field(strict=False, min_length=1)]
    """The jobs, in any order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    version: int
    jobs: tuple[JobSpec, ...]
    path: Path | None


def differences(
    old: Mapping[str, JsonValue], new: Mapping[str, JsonValue], prefix: str = ""
) -> list[tuple[str, JsonValue, JsonValue]]:
    """Each field that differs between two identities: its dotted path, the old value, the new one; None is absent."""
    found: list[tuple[str, JsonValue, JsonValue]] = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after or type(before) is not type(after):
            found.append((prefix + key, before, after))
    return found
