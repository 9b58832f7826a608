"""The life of one item: from its row to what is stored about it. Reads in that order in `run_item`.

An attempt ends in one of four ways: `complete`; `failed` (with its text, usage and cost, if there were any); `unsent`
(nothing left this machine); `lost` (interrupted in flight: it may have been billed).
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from batchrun import transport
from batchrun.answer import DONE_REASONS, Answer, Fit, Usage
from batchrun.attachments import STALE, Tools, attentive, contents_of, opened_request, stood_still
from batchrun.dialects.base import Body
from batchrun.errors import PASSING_ERRNOS, ErrorKind, MediaError, ProviderError, TemplateError
from batchrun.messages import (
    ChatRequest,
    JsonValue,
    Message,
    TextPart,
    Uploaded,
)
from batchrun.placing import needs_placing, placed, uploads_in
from batchrun.plan import Plan, Timeouts
from batchrun.pricing import cost_of
from batchrun.retries import MONEY_IS_GONE, PROFILE_IS_REFUSED, Decision, Tries, after_cut, decide
from batchrun.settings import masked
from batchrun.states import State
from batchrun.store.claim import Call
from batchrun.store.finish import Charge, Outcome, Result
from batchrun.stream.continuing import Continuing, Prefix, Stopped, cut_early, lengths_left, may_continue
from batchrun.stream.fold import Fold, storable
from batchrun.stream.sse import Splitter, looks_plain
from batchrun.tables import EPOCH, MOST_MONEY
from batchrun.uploads.uploading import RESOLVE

if TYPE_CHECKING:
    from batchrun.shape import Shape

FREE_OF_CHARGE = frozenset(
    {
        ErrorKind.RATE_LIMITED,
        ErrorKind.UNAVAILABLE,
        ErrorKind.INVALID,
        ErrorKind.NOT_FOUND,
        ErrorKind.ACCOUNT,
        ErrorKind.ARREARS,
        ErrorKind.MEDIA,
        ErrorKind.MEDIA_UNAVAILABLE,
    }
)
"""Refusals before anything was generated, and requests that were never whole. All else that was sent may have been
billed; moderation too, as it may have looked at an answer that was already made."""

LINGER = timedelta(milliseconds=250)
"""After the terminal marker the rest of the body is read for this long, so that the connection can be used again."""
PLAIN_WAIT = timedelta(seconds=330)
"""An answer that isn't streamed arrives at once; servers give up at 180 or 300 s (contract T17)."""
ERROR_CHARS = 2_000


@dataclass(slots=True, kw_only=True)
class Live:
    """A call as the watchdog and the progress display see it. Times are seconds of the loop's clock."""

    timeouts: Timeouts
    stream: bool
    task: asyncio.Task[None] | None = None
    started: float | None = None
    content_at: float | None = None
    whole_at: float | None = None
    """When the answer was whole; what follows only frees the connection."""
    expired: str = ""

    def overdue(self, now: float) -> str:
        """Which clock has run out, in words; empty for none."""
        if self.started is None:
            return ""
        if self.whole_at is not None:
            return "lingering" if now - self.whole_at > LINGER.total_seconds() else ""
        if now - self.started > self.timeouts.total.total_seconds():
            return f"no complete answer within {words(self.timeouts.total)}"
        if self.content_at is not None:
            quiet = self.stream and now - self.content_at > self.timeouts.silence.total_seconds()
            return f"nothing new for {words(self.timeouts.silence)}" if quiet else ""
        limit = self.timeouts.first_token if self.stream else max(self.timeouts.first_token, PLAIN_WAIT)
        return f"no first token within {words(limit)}" if now - self.started > limit.total_seconds() else ""


def words(span: timedelta) -> str:
    return f"{span.total_seconds():g} s"


@dataclass(slots=True, kw_only=True)
class Exchange:
    """What is known of the HTTP exchange so far; filled as it goes, so that any end can tell it."""

    fold: Fold = field(default_factory=Fold)
    sent_at: datetime | None = None
    first_token_at: datetime | None = None
    http_status: int | None = None
    request_id: str | None = None
    """From the headers: all there is of an answer that breaks before it has named itself."""
    contents: str | None = None
    """Names what was in the local files that were sent."""
    uploads: Sequence[Uploaded] = ()
    """Those that the request names."""
    note: str | None = None
    """What was done to the pictures."""


async def run_item(call: Call, plan: Plan, live: Live, tools: Tools) -> Result:
    """Make the call and say what came of it. Raises nothing but CancelledError before the request has left."""
    exchange = Exchange()
    try:
        async with opened_request(call, plan, tools) as (request, opened):
            ready = request
            if needs_placing(plan):
                ready = await attentive(placed(request, call.profile_id, plan, tools.links, tools.uploader), tools)
            exchange.note = "; ".join(media.note for media in opened if media.note) or None
            exchange.uploads = uploads_in(ready)
            rule = plan.continuing_of(call.variables)
            body = plan.dialect.encode(continued(ready, call.prefix, rule), plan.model.rules)
            took_time = exchange.note is not None or ready is not request
            await wait_for_slot(call, tools, ready_at=tools.now() if took_time else call.send_at)
            live.started = tools.monotonic()
            exchange.sent_at = tools.now()
            try:
                await converse(body, plan, live, exchange, tools)
            finally:
                exchange.contents = contents_of(call, opened)
        return concluded(call, plan, exchange, tools)
    except (MediaError, TemplateError) as error:
        return failed(call, plan, exchange, tools, ProviderError(kind_of(error), worded(error)))
    except ProviderError as error:
        if plan.uploads is not None and exchange.uploads:
            error = await tools.uploader.judged(error, exchange.uploads, plan.uploads, call.profile_id)
        return broken_off(call, plan, exchange, tools, error)
    except asyncio.CancelledError:
        if live.task is not None:
            live.task.uncancel()
        if live.whole_at is not None or exchange.fold.complete:
            missing = ProviderError(ErrorKind.INCOMPLETE, exchange.fold.missing())
            return broken_off(call, plan, exchange, tools, missing)
        if live.expired:
            return failed(call, plan, exchange, tools, ProviderError(ErrorKind.TIMEOUT, live.expired))
        return interrupted(call, plan, exchange, tools)


def broken_off(call: Call, plan: Plan, exchange: Exchange, tools: Tools, error: ProviderError) -> Result:
    """An answer that is whole stays whole, and an error that the server told stays that error, whatever happens to the
    connection afterwards."""
    if exchange.fold.complete:
        return concluded(call, plan, exchange, tools)
    return failed(call, plan, exchange, tools, exchange.fold.error or error)


def kind_of(error: MediaError | TemplateError) -> ErrorKind:
    if isinstance(error, TemplateError):
        return ErrorKind.TEMPLATE
    passing = isinstance(error.__cause__, OSError) and error.__cause__.errno in PASSING_ERRNOS
    return ErrorKind.LOCAL if passing else ErrorKind.MEDIA


def worded(error: MediaError | TemplateError) -> str:
    if not error.remedy:
        return error.message
    return f"{error.message}{' ' if error.message.endswith('.') else '; '}{error.remedy}"


def continued(request: ChatRequest, prefix: Prefix | None, rule: Continuing | None) -> ChatRequest:
    """The request with the text that is to be continued, for as many tokens as the whole may still have. Its name
    stays that of the request without it."""
    if prefix is None:
        return request
    so_far = Message(role="assistant", parts=(TextPart(text=prefix.text),), partial=True)
    whole = rule is not None and rule.limit is not None
    params = lengths_left(request.params, prefix.text) if whole else request.params
    return replace(request, messages=(*request.messages, so_far), params=params)


def joined(answer: Answer, prefix: Prefix | None) -> Answer:
    """The answer behind the text that it continues, by the rule of `continuing`."""
    if prefix is None:
        return answer
    return replace(answer, text=prefix.text + answer.text, continues=prefix.attempt_id)


async def wait_for_slot(call: Call, tools: Tools, *, ready_at: datetime) -> None:
    """`ready_at`: when the request was ready, where making its pictures took its time."""
    wait = (call.send_at - tools.now()).total_seconds()
    if wait > 0:
        await tools.sleep(wait)
    if (
        tools.now() - max(call.send_at, ready_at) > STALE
    ):  # also after the sleep: the process may have been stopped in it
        raise stood_still()


async def converse(body: Body, plan: Plan, live: Live, exchange: Exchange, tools: Tools) -> None:
    """Send the request and fold what comes back. Raises ProviderError for anything but a readable answer."""
    headers = {**plan.headers, **RESOLVE} if exchange.uploads else plan.headers
    async with tools.transport.post(plan.url, headers, body) as response:
        exchange.http_status = response.status
        exchange.request_id = response.headers.get("x-request-id") or response.headers.get("x-trace-id")
        if response.status != 200:
            raise plan.dialect.read_error(response.status, response.headers, await response.read(transport.ERROR_BYTES))
        chunks = response.chunks()
        head = b""
        if plan.stream:
            # An endpoint may ignore `stream`, or answer 200 with a page: the first byte tells.
            while not head.strip() and (chunk := await anext(chunks, b"")):
                head += chunk
        if not plan.stream or looks_plain(head):
            whole = head + await transport.read_up_to(chunks, transport.PLAIN_BYTES)
            mark_content(live, exchange, tools)
            exchange.fold.feed(plan.dialect.decode_plain(whole, response.headers))
            return
        await follow(head, chunks, plan, live, exchange, tools)


async def follow(
    head: bytes, chunks: AsyncIterator[bytes], plan: Plan, live: Live, exchange: Exchange, tools: Tools
) -> None:
    """Fold a stream to its end.

    After its terminal marker or its first error it is followed only for a late usage, and so that the connection can
    be used again.
    """
    fold, splitter = exchange.fold, Splitter()

    def take(chunk: bytes) -> None:
        before = fold.size
        for delta in plan.dialect.decode_all(splitter.feed(chunk)):
            fold.feed(delta)
        if fold.size != before:
            mark_content(live, exchange, tools)
        if live.whole_at is None and (fold.ended or fold.error is not None):
            live.whole_at = tools.monotonic()

    take(head)
    async for chunk in chunks:
        take(chunk)
    for delta in plan.dialect.decode_all(splitter.close()):
        fold.feed(delta)


def mark_content(live: Live, exchange: Exchange, tools: Tools) -> None:
    live.content_at = tools.monotonic()
    if exchange.first_token_at is None:
        exchange.first_token_at = tools.now()


def concluded(call: Call, plan: Plan, exchange: Exchange, tools: Tools) -> Result:
    """Raises ProviderError where the answer isn't complete."""
    fold = exchange.fold
    if fold.error is not None:
        raise fold.error
    if missing := fold.missing():
        raise ProviderError(ErrorKind.INCOMPLETE, missing)
    rule = plan.continuing_of(call.variables)
    whole = joined(fold.answer(), call.prefix)
    if rule is not None and (
        goes_on(whole, rule) or (call.prefix is not None and cut_early(whole.text, whole.finish_reason, rule))
    ):
        decision = after_cut(tries_of(call), plan.policy, tools.now())
    else:
        state = State.DONE if fold.finish_reason in DONE_REASONS else State.TRUNCATED
        decision = Decision(state=state, next_at=call.send_at, tries=tries_of(call))
    fit = Fit()
    shape = plan.shape_of(call.variables)
    if shape is not None:
        fit = fit_of(whole, shape, plan.secrets)
    unfit = ProviderError(ErrorKind.INVALID_ANSWER, f"the answer doesn't fit: {fit.problem}") if fit.problem else None
    if unfit is not None and plan.on_invalid != "keep":
        return failed(call, plan, exchange, tools, unfit)
    return ended(
        call,
        plan,
        exchange,
        tools,
        outcome="complete",
        state=decision.state,
        next_at=decision.next_at,
        tries=decision.tries,
        error=unfit,
        parsed=fit.value,
        maybe_billed=True,
    )


def fit_of(answer: Answer, shape: Shape, secrets: Sequence[str]) -> Fit:
    """What a whole answer says in the form that the job asks for. One that was cut fits none, and its state says so; in
    one that calls tools there is nothing to look at."""
    if answer.finish_reason != "stop" or answer.tool_calls:
        return Fit()
    return shape.fit(masked(answer.text, secrets))


def goes_on(answer: Answer, rule: Continuing) -> bool:
    """Whether this whole answer was cut and its rest shall be asked for."""
    stopped = Stopped(
        text=answer.text,
        finish_reason=answer.finish_reason,
        complete=True,
        error_kind=None,
        plain=not answer.reasoning and not answer.tool_calls,
    )
    return may_continue(stopped, rule)


def tries_of(call: Call) -> Tries:
    return Tries(free=call.free_tries, paid=call.paid_tries, free_since=call.free_since)


def failed(call: Call, plan: Plan, exchange: Exchange, tools: Tools, error: ProviderError) -> Result:
    if error.kind in PROFILE_IS_REFUSED | MONEY_IS_GONE:
        error = refused_by(plan, error)
    decision = decide(error, tries_of(call), plan.policy, tools.now(), tools.random)
    sent = exchange.sent_at is not None and error.kind is not ErrorKind.NOT_SENT
    refused = error.kind in FREE_OF_CHARGE and exchange.http_status != 200
    return ended(
        call,
        plan,
        exchange,
        tools,
        outcome="unsent" if exchange.sent_at is None else "failed",
        state=decision.state,
        next_at=decision.next_at,
        tries=decision.tries,
        error=error,
        pauses=decision.pauses,
        maybe_billed=sent and not refused,
    )


def refused_by(plan: Plan, error: ProviderError) -> ProviderError:
    """The same error with what to do: it will stop the whole job, and its message is what the person will read."""
    of_the_key = error.kind is ErrorKind.ACCOUNT and plan.key_name is not None
    who = f"the key in {plan.key_name} was refused: " if of_the_key else ""
    told = f"{who}{error.message}{f' {error.remedy}' if error.remedy else ''}"
    return ProviderError(
        error.kind,
        told,
        http_status=error.http_status,
        vendor_code=error.vendor_code,
        request_id=error.request_id,
        retry_after=error.retry_after,
    )


def interrupted(call: Call, plan: Plan, exchange: Exchange, tools: Tools) -> Result:
    """Cancelled from outside: by the second Ctrl-C, or in order before it was sent."""
    if exchange.sent_at is None:
        return given_back(call, plan, tools)
    return ended(
        call,
        plan,
        exchange,
        tools,
        outcome="lost",
        state=State.PENDING,
        next_at=EPOCH,
        error=ProviderError(ErrorKind.LOST, "stopped while the call was in flight; it may have been billed"),
        maybe_billed=True,
    )


def given_back(call: Call, plan: Plan, tools: Tools) -> Result:
    """A call that was claimed and shall not be made now."""
    return ended(call, plan, Exchange(), tools, outcome="unsent", state=State.PENDING, next_at=EPOCH)


def broken(call: Call, plan: Plan, tools: Tools, fault: Exception) -> Result:
    """A fault in batchrun itself: what arrived is lost with it, what it may have cost is not."""
    place = traceback.extract_tb(fault.__traceback__)[-1]
    error = ProviderError(
        ErrorKind.INTERNAL, f"a fault in batchrun: {type(fault).__name__} at {place.name}:{place.lineno}: {fault}"
    )
    return ended(
        call,
        plan,
        Exchange(),
        tools,
        outcome="failed",
        state=State.FAILED,
        next_at=EPOCH,
        error=error,
        maybe_billed=True,
    )


def ended(
    call: Call,
    plan: Plan,
    exchange: Exchange,
    tools: Tools,
    *,
    outcome: Outcome,
    state: State,
    next_at: datetime,
    tries: Tries | None = None,
    error: ProviderError | None = None,
    pauses: str | None = None,
    parsed: JsonValue = None,
    maybe_billed: bool = False,
) -> Result:
    """The result with all that the exchange left behind. Keys are masked in every text that is stored."""
    fold = exchange.fold
    answer = joined(fold.answer(), call.prefix) if fold.has_content or outcome == "complete" else None
    usage = fold.usage
    told = (None if answer is None else answer.request_id) or (None if error is None else error.request_id)
    request_id = told or exchange.request_id
    return Result(
        call=call,
        outcome=outcome,
        state=state,
        next_at=next_at,
        free_tries=call.free_tries if tries is None else tries.free,
        paid_tries=call.paid_tries if tries is None else tries.paid,
        free_since=call.free_since if tries is None else tries.free_since,
        max_elapsed=plan.policy.max_elapsed,
        ended_at=tools.now(),
        sent_at=exchange.sent_at,
        first_token_at=exchange.first_token_at,
        http_status=exchange.http_status,
        error_kind=None if error is None else error.kind,
        error=None if error is None else storable(masked(error.message, plan.secrets)[:ERROR_CHARS]),
        vendor_code=None if error is None else short(error.vendor_code, plan.secrets),
        request_id=short(request_id, plan.secrets),
        contents=exchange.contents,
        note=None if exchange.note is None else storable(masked(exchange.note, plan.secrets)[:ERROR_CHARS]),
        answer=None if answer is None else replace(without_secrets(answer, plan.secrets), parsed=parsed),
        charge=charge(call, plan, exchange, maybe_billed=maybe_billed),
        pauses=pauses,
        tokens=usage.total_tokens if usage is not None and fold.usage_is_final else None,
    )


def short(word: str | None, secrets: Sequence[str]) -> str | None:
    return None if word is None else storable(masked(word, secrets)[:200])


def without_secrets(answer: Answer, secrets: Sequence[str]) -> Answer:
    text, reasoning = masked(answer.text, secrets), masked(answer.reasoning, secrets)
    finish_reason = short(answer.finish_reason, secrets)
    if answer.tool_calls:
        calls = masked(msgspec.json.encode(answer.tool_calls).decode(), secrets)
        answer = replace(answer, tool_calls=msgspec.json.decode(calls))
    same = (text, reasoning, finish_reason) == (answer.text, answer.reasoning, answer.finish_reason)
    return answer if same else replace(answer, text=text, reasoning=reasoning, finish_reason=finish_reason)


def counted(exchange: Exchange, secrets: Sequence[str]) -> Usage | None:
    """The usage that arrived; the vendor's own words in it without keys, as in any other text."""
    usage = exchange.fold.usage
    if usage is None:
        return None
    raw = msgspec.json.encode(usage.raw).decode()
    clean = masked(raw, secrets)
    return usage if clean == raw else replace(usage, raw=msgspec.json.decode(clean))


def charge(call: Call, plan: Plan, exchange: Exchange, *, maybe_billed: bool) -> Charge | None:
    """What the attempt cost: exact where usage arrived, else between nothing and what was reserved for it."""
    usage = counted(exchange, plan.secrets)
    if usage is None and not maybe_billed:
        return None
    price = plan.model.price_at(exchange.sent_at or call.claimed_at)
    if price is None:
        return Charge(usage=usage, price_id=None, cost_low=None, cost_high=None, currency=None)
    cost = None if usage is None else cost_of(usage, price, thought=bool(exchange.fold.reasoning))
    if cost is not None and not exchange.fold.usage_is_final:
        # Counted in the middle of an answer that broke: the vendor may bill nothing, this, or all that it made later.
        high = cost.high if call.reserved is None else max(call.reserved, cost.high)
        return Charge(usage=usage, price_id=None, cost_low=Decimal(0), cost_high=high, currency=cost.currency)
    if cost is not None and cost.high < MOST_MONEY:  # a usage that costs more is a mistake of the server's
        return Charge(
            usage=usage,
            price_id=plan.price_ids[price.valid_from, cost.tier.up_to],
            cost_low=cost.low,
            cost_high=cost.high,
            currency=cost.currency,
        )
    low = None if call.reserved is None else Decimal(0)
    return Charge(usage=usage, price_id=None, cost_low=low, cost_high=call.reserved, currency=price.currency)
