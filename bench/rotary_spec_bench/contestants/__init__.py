"""What is timed: a copy of the same bytes, this package's backends, and other people's code."""

from __future__ import annotations

from rotary_spec_bench.contestants.base import Contestant, Prepared, Unsuited
from rotary_spec_bench.contestants.copies import copies
from rotary_spec_bench.contestants.ours import ours
from rotary_spec_bench.contestants.peers import peers

__all__ = ["Contestant", "Prepared", "Unsuited", "contestants", "copies", "ours", "peers"]


def contestants(device: str, with_peers: bool) -> list[Contestant]:
    """Everything that is timed on a device, "cpu" or "cuda"; the copies come first."""
    return [*copies(device), *ours(device), *(peers(device) if with_peers else ())]
