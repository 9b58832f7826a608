"""Members of a wrong kind are refused in every protocol; none of them breaks the connection."""

import itertools

import pytest

from batchrun.simulator import Running

from .native import MULTIMODAL_PATH, NativeClient
from .raw import Client, Json
from .test_acedata import AceClient
from .test_moonshot import MoonshotClient

ODD: list[object] = [None, True, -1, 1e400, "", "odd", [], [[]], {}, {"a": []}, "x" * 100_000]
MEMBERS = {
    "native": (
        "model input parameters input.messages input.messages.0 input.messages.0.role input.messages.0.content "
        "input.messages.0.content.0 input.messages.0.content.0.text parameters.enable_thinking parameters.seed "
        "parameters.incremental_output parameters.result_format parameters.n"
    ),
    "openai": (
        "model messages messages.0 messages.0.role messages.0.content stream stream_options max_tokens temperature "
        "thinking n response_format"
    ),
}


def changed(document: object, path: list[str], value: object) -> object:
    """The document with another value at this place."""
    if not path:
        return value
    step, *rest = path
    if isinstance(document, list):
        return [changed(item, rest, value) if str(place) == step else item for place, item in enumerate(document)]
    assert isinstance(document, dict)
    return {**document, step: changed(document.get(step, {}), rest, value)}


def clients(simulator: Running) -> list[tuple[Client, str, Json]]:
    native = NativeClient(simulator, path=MULTIMODAL_PATH, stream=False)
    ace, moonshot = AceClient(simulator, "acedata"), MoonshotClient(simulator, "moonshot")
    return [(native, "native", native.body()), (ace, "openai", ace.body()), (moonshot, "openai", moonshot.body())]


@pytest.mark.parametrize("place", range(3), ids=["native", "acedata", "moonshot"])
def test_odd_members_are_answered(simulator: Running, place: int) -> None:
    client, form, body = clients(simulator)[place]
    unanswered = [
        (member, value)
        for member, value in itertools.product(MEMBERS[form].split(), ODD)
        if client.ask(changed(body, member.split("."), value)).status not in (200, 400, 404)
    ]
    assert unanswered == []
