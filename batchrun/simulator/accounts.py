"""The account of one request while it runs: what was sent, what the client was told, what it costs."""

from dataclasses import replace
from decimal import Decimal

from batchrun.simulator.book import BookRow, now
from batchrun.simulator.dialect import Identity
from batchrun.simulator.generation import PROPER_ENDS, Generation
from batchrun.simulator.options import Bill
from batchrun.simulator.prices import Usage, amount
from batchrun.simulator.script import Event


class Account:
    def __init__(self, *, region: str, fault: str, body_sha256: str, bill: Bill) -> None:
        self.region = region
        self.fault = fault
        self.body_sha256 = body_sha256
        self.bill = bill
        self.time = now()
        self.model: str | None = None
        self.hit: tuple[str, ...] = ()
        self.stream = False
        self.status: int | None = None
        self.admitted = False
        self.full: Usage | None = None
        self.begun = False
        self.tokens = 0
        self.reasoning_tokens = 0
        self.usage_sent: Usage | None = None
        self.finish: str | None = None
        self.done = False
        self.refusal = False

    def generation(self, generation: Generation) -> None:
        self.full = generation.usage

    def refused(self, status: int) -> None:
        self.status = status
        self.refusal = True

    def sent(self, event: Event) -> None:
        """Note an event whose bytes have been written."""
        self.begun = True
        self.tokens += event.tokens
        self.reasoning_tokens += event.reasoning_tokens
        self.usage_sent = event.usage or self.usage_sent
        self.finish = event.finish or self.finish
        self.done = self.done or event.done

    @property
    def complete(self) -> bool:
        """A proper finish reason, and after it the end mark or the usage."""
        return self.finish in PROPER_ENDS and (self.done or self.usage_sent is not None)

    def billed(self) -> Usage:
        """Tokens that are paid for. The usage told is the bill (contract 6, O8), where one was told."""
        if self.full is None:
            return Usage()
        if self.refusal:
            charged = self.bill is Bill.PROMPT_ON_ERROR and (self.status or 0) >= 500
            return replace(self.full, output=0, reasoning=0) if charged else Usage()
        if self.complete:
            return self.usage_sent or self.full
        match self.bill:
            case Bill.FULL:
                return self.full
            case Bill.COMPLETE_ONLY:
                return Usage()
        return self.usage_sent or self.delivered()

    def delivered(self) -> Usage:
        """Input and the tokens sent so far; nothing before the first of them."""
        if self.full is None or not self.begun:
            return Usage()
        return replace(self.full, output=self.tokens, reasoning=self.reasoning_tokens)

    def row(self, identity: Identity) -> BookRow:
        billed = self.billed()
        return BookRow(
            time=self.time,
            request_id=identity.request_id,
            chat_id=identity.chat_id,
            region=self.region,
            model=self.model,
            fault=self.fault,
            hit=self.hit,
            body_sha256=self.body_sha256,
            stream=self.stream,
            status=self.status,
            complete=self.complete,
            billed=billed,
            usage_sent=self.usage_sent,
            amount=self.amount(billed),
        )

    def amount(self, billed: Usage) -> Decimal | None:
        if billed == Usage():
            return Decimal(0)
        return amount(self.region, self.model or "", billed)
