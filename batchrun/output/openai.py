"""Answers in the form of OpenAI's batch output, which Model Studio's is too (provider contract 8.6).

A line has `id`, `custom_id`, `response` and `error`. Answers are whole chat completions, those that were cut included;
items without an answer have an `error` and stand in a file of their own.
"""

from __future__ import annotations

from batchrun.answer import Usage
from batchrun.reports.results import AttemptResult, ItemResult
from batchrun.states import State

Line = dict[str, object]
_WORDS = {State.CANCELLED: "cancelled before there was an answer"}


def answer_line(item: ItemResult, attempt: AttemptResult) -> Line:
    """The line of an item that `attempt` has answered. Its usage is that of this attempt, as the vendor counts too;
    none where it stands at the item that shares its answer."""
    body: Line = {
        "id": attempt.request_id or f"chatcmpl-{attempt.id}",
        "object": "chat.completion",
        "created": int((attempt.sent_at or attempt.claimed_at).timestamp()),
        "model": item.model,
        "choices": [
            {"index": 0, "message": _message(item), "finish_reason": item.finish_reason, "logprobs": None},
        ],
        "usage": None if attempt.usage is None or item.shared is not None else _usage(attempt.usage),
    }
    own = None if item.shared is not None else attempt
    return _line(item, own, response=_response(200, attempt, body), error=None)


def error_line(item: ItemResult) -> Line:
    """The line of an item that has no answer. `response` is null where no answer of HTTP came, or one of 200 broke."""
    last = item.attempts[-1] if item.attempts else None
    code = item.error_kind or item.state.value
    message = item.error or _WORDS.get(item.state, "not done yet")
    response = None
    if last is not None and last.http_status not in (None, 200):
        error = {"message": message, "type": code, "param": None, "code": last.vendor_code or code}
        response = _response(last.http_status, last, {"error": error})
    return _line(item, last, response=response, error={"code": code, "message": message})


def _line(item: ItemResult, attempt: AttemptResult | None, *, response: Line | None, error: Line | None) -> Line:
    name = f"batch_req_{attempt.id}" if attempt is not None else f"batch_req_item_{item.id}"
    return {"id": name, "custom_id": item.custom_id, "response": response, "error": error}


def _response(status: int | None, attempt: AttemptResult, body: Line) -> Line:
    return {"status_code": status, "request_id": attempt.request_id, "body": body}


def _message(item: ItemResult) -> Line:
    content = None if item.tool_calls and not item.text else item.text
    message: Line = {"role": "assistant", "content": content}
    if item.reasoning:
        message["reasoning_content"] = item.reasoning
    if item.tool_calls:
        message["tool_calls"] = item.tool_calls
    return message


def _usage(counted: Usage) -> Line | None:
    """None where input or output isn't known: readers of this form take both for numbers."""
    if counted.total_tokens is None:
        return None
    usage: Line = {
        "prompt_tokens": counted.input_tokens,
        "completion_tokens": counted.output_tokens,
        "total_tokens": counted.total_tokens,
    }
    given = {
        "cached_tokens": counted.cached_tokens,
        "cache_creation_input_tokens": counted.cache_write_tokens,
        "image_tokens": counted.image_tokens,
        "video_tokens": counted.video_tokens,
    }
    for name, parts in (
        ("prompt_tokens_details", given),
        ("completion_tokens_details", {"reasoning_tokens": counted.reasoning_tokens}),
    ):
        known = {part: count for part, count in parts.items() if count is not None}
        if known:
            usage[name] = known
    return usage
