"""One chat request from its bytes to its row in the bill book: decide first, perform afterwards."""

import asyncio
import hashlib
from dataclasses import dataclass, field, replace

from batchrun.simulator.accounts import Account
from batchrun.simulator.book import Book
from batchrun.simulator.contents import ContentsReader
from batchrun.simulator.dialect import Identity
from batchrun.simulator.faults import Clause, FaultMemory, Faults, FaultSpecError, parse_spec
from batchrun.simulator.files import SCHEME, Files
from batchrun.simulator.generation import Generation, generate
from batchrun.simulator.http import HttpRequest, Reply, encode_reply, head
from batchrun.simulator.injected import Refused, injected_reply, refusing_clause
from batchrun.simulator.keys import bearer, same_key
from batchrun.simulator.limits import Limits
from batchrun.simulator.line import Line
from batchrun.simulator.models import MOONSHOT, Model, model_at
from batchrun.simulator.options import Options
from batchrun.simulator.pacer import Pacer
from batchrun.simulator.parameters import Parameters, model_name, read_fields
from batchrun.simulator.performance import Pace, perform
from batchrun.simulator.refusals import Refusal, invalid, malformed, no_such_model, timed_out, wrong_key
from batchrun.simulator.script import Script, plain_script, stream_script
from batchrun.simulator.stats import Counts
from batchrun.simulator.targets import Target
from batchrun.simulator.uploads import Uploads

EARLY = ("reset", "close", "stall", "bad-http")
"""Faults that break the connection before a status line."""


@dataclass(kw_only=True)
class Simulation:
    """What all connections of one simulator share."""

    options: Options
    keys: dict[str, str]
    book: Book
    limits: Limits
    uploads: Uploads
    files: Files
    pacer: Pacer = field(default_factory=Pacer)
    counts: Counts = field(default_factory=Counts)
    memory: FaultMemory = field(default_factory=FaultMemory)
    specs: dict[str, tuple[Clause, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A request that the service accepts."""

    model: Model
    parameters: Parameters
    generation: Generation
    hash: bytes


class Exchange:
    def __init__(self, simulation: Simulation, request: HttpRequest, target: Target, line: Line) -> None:
        self.simulation = simulation
        self.options = simulation.options
        self.request = request
        self.target = target
        self.line = line
        self.dialect = target.api.dialect
        self.identity: Identity = self.dialect.identity(target.region)
        digest = hashlib.sha256(request.body)
        self.body_hash = digest.digest()
        self.spec = target.spec or self.options.fault
        self.account = Account(
            region=target.region, fault=self.spec, body_sha256=digest.hexdigest(), bill=self.options.bill
        )
        self.faults = Faults()

    async def run(self) -> bool:
        """Answer the request; return whether the connection can be used again."""
        simulation = self.simulation
        simulation.counts.begin(asyncio.get_running_loop().time())
        try:
            return await self.answer()
        finally:
            row = self.account.row(self.identity)
            simulation.book.write(row)
            simulation.counts.end(row.status)
            if self.account.admitted:
                simulation.limits.add_output(row.region, row.model or "", row.billed.output)

    async def answer(self) -> bool:
        try:
            call = self.decide()
            self.account.generation(call.generation)
            clause = refusing_clause(self.faults)
            early = next((name for name in self.faults.clauses if name in EARLY), None)
            if early is not None and (clause is None or before(self.faults, early, clause.name)):
                return await self.break_early(early)
            if clause is not None:
                return await self.reply(injected_reply(clause, self.refused()))
            self.admit(call)
            script, pace = await self.script(call)
        except Refusal as refusal:
            return await self.reply(self.refusal_reply(refusal))
        return await self.perform(script, pace)

    def decide(self) -> Call:
        """Read the request; raise `Refusal` for what the service does not accept."""
        self.faults = self.select_faults()
        self.account.hit = tuple(self.faults.clauses)
        if not same_key(bearer(self.request.headers), self.simulation.keys[self.target.region]):
            raise wrong_key()
        fields = read_fields(self.request.body)
        name = model_name(fields)
        model = model_at(self.target.region, name)
        if model is None:
            raise no_such_model(name)
        self.account.model = name
        self.identity = replace(self.identity, model=name)
        headers = self.request.headers
        self.account.stream = self.dialect.streams(fields, headers)
        asked, parameters = self.dialect.read(fields, headers, model)
        seed = f"{self.options.seed} {name} {parameters.seed} {parameters.thinking}".encode()
        at_moonshot = self.target.region == MOONSHOT
        resolver = self.simulation.uploads.resolver(self.target.region, name, headers)
        reader = ContentsReader(
            model,
            high_resolution=parameters.high_resolution,
            seed=seed,
            stored=self.simulation.files.resolve if at_moonshot else resolver,
            scheme=SCHEME if at_moonshot else "oss://",
            max_frames=parameters.max_frames,
        )
        contents = reader.read(asked)
        if contents.prefix is not None and parameters.thinking:
            raise invalid("Partial mode is not supported when enable_thinking is true.", param="partial")
        if parameters.json_answer and parameters.schema is None and not contents.mentions("json"):
            raise invalid("JSON mode needs the word json in the messages.", param="response_format")
        most = model.max_input_thinking if parameters.thinking else model.max_input
        if contents.input_tokens > most:
            raise invalid(f"Range of input length should be [1, {most}].", param="messages")
        if parameters.context is not None and contents.input_tokens + parameters.max_tokens > parameters.context:
            raise invalid(f"Input and max_tokens together exceed {parameters.context} tokens.", param="max_tokens")
        generation = generate(parameters, contents, self.faults, chunk_tokens=self.options.chunk_tokens)
        return Call(model=model, parameters=parameters, generation=generation, hash=contents.hash)

    def select_faults(self) -> Faults:
        if not self.spec:
            return Faults()
        specs = self.simulation.specs
        try:
            if self.spec not in specs:
                specs[self.spec] = parse_spec(self.spec)
        except FaultSpecError as error:
            raise malformed(f"simulator: {error}", code="simulator_fault_spec") from error
        key = f"{self.target.region}/{self.spec}"
        return self.simulation.memory.select(key, specs[self.spec], self.body_hash)

    def admit(self, call: Call) -> None:
        if self.target.api.limited:
            self.simulation.limits.admit(self.target.region, call.model.name, call.generation.usage.input)
            self.account.admitted = True

    async def script(self, call: Call) -> tuple[Script, Pace]:
        pace = Pace.of(self.options, self.faults, call.hash)
        if call.parameters.stream:
            return stream_script(self.dialect, call.generation, call.parameters, self.identity, self.faults), pace
        pace = pace.for_plain(call.generation.usage.output)
        partial = "partial" in self.faults
        longest = self.options.plain_timeout if self.target.api.held is None else self.target.api.held
        if pace.ttft > longest:
            pace, partial = Pace(ttft=longest), True
            if not call.model.partial_on_timeout:
                await self.line.until(asyncio.get_running_loop().time() + pace.ttft)
                raise timed_out()
        script = plain_script(
            self.dialect, call.generation, call.parameters, self.identity, self.faults, partial=partial
        )
        return script, pace

    async def perform(self, script: Script, pace: Pace) -> bool:
        closing = script.framing == "close" or "connection-close" in self.faults
        keep_alive = self.request.keep_alive and not closing
        headers = list(script.headers)
        if script.framing == "chunked":
            headers.append(("transfer-encoding", "chunked"))
        elif script.length is not None:
            headers.append(("content-length", str(script.length)))
        if not keep_alive:
            headers.append(("connection", "close"))
        await perform(script, head(200, headers), pace, self.line, self.account)
        return keep_alive and script.ending == "end" and "close-idle" not in self.faults

    async def break_early(self, name: str) -> bool:
        match name:
            case "reset":
                await self.line.reset()
            case "stall":
                await self.line.stall()
            case "bad-http":
                await self.line.send(b"220 mail.example ESMTP ready\r\n\r\n")
        return False

    def refused(self) -> Refused:
        return Refused(
            dialect=self.dialect,
            identity=self.identity,
            key=bearer(self.request.headers),
            path="/".join(self.target.api.words),
            in_stream=self.account.stream and "in-stream" in self.faults,
        )

    def refusal_reply(self, refusal: Refusal) -> Reply:
        reply = self.refused().reply(refusal)
        return replace(reply, headers=(*reply.headers, ("x-request-id", self.identity.request_id)))

    async def reply(self, reply: Reply) -> bool:
        self.account.refused(reply.status)
        keep_alive = self.request.keep_alive and "connection-close" not in self.faults
        await self.line.send(encode_reply(reply, keep_alive=keep_alive))
        return keep_alive and "close-idle" not in self.faults


def before(faults: Faults, one: str, other: str) -> bool:
    names = list(faults.clauses)
    return names.index(one) < names.index(other)
