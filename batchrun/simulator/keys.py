"""Which API keys the simulator accepts. A key of one region is refused in another (contract 1.1)."""

import hmac
from collections.abc import Mapping
from typing import Final

from batchrun.simulator.models import BATCH_CHAT, PLACES

KEY_VARIABLE: Final = "BATCHRUN_SIMULATOR_KEY"
"""When the environment has it, it is the only accepted key, everywhere."""


def default_key(region: str) -> str:
    return f"sk-sim-{region}"


def accepted_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """The accepted key of each region, and of the other providers."""
    only = environment.get(KEY_VARIABLE)
    own = {region: only or default_key(region) for region in PLACES}
    return {**own, BATCH_CHAT: own["beijing"]}


def bearer(headers: Mapping[str, str]) -> str:
    """The key in the Authorization header; empty without one."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def same_key(given: str, accepted: str) -> bool:
    return hmac.compare_digest(given.encode(), accepted.encode())
