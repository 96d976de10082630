"""Holds what was measured, and writes it to `results.json`: every round, so that tables and plots can be made again.

rounds -> Results -> results.json; medians and spread for `report` and `plots`
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path

from benchmarks.comparison.ceiling import Ceiling
from benchmarks.comparison.drivers import Load


@dataclass
class Memory:
    """Resident memory of all processes of our server.

    Attributes:
        first_count: requests answered at the first look.
        first_bytes: resident bytes at the first look.
        last_count: requests answered at the last look.
        last_bytes: resident bytes at the last look.
    """

    first_count: int
    first_bytes: int
    last_count: int
    last_bytes: int


@dataclass
class Results:
    """Every figure of a run.

    Attributes:
        machine: facts about the machine, the versions and the code, from `machine.describe`.
        command: the command that was run.
        seconds: how long each measurement took.
        versions: server -> its version.
        loads: workload -> server -> one load a round.
        ceilings: workload -> one ceiling a round.
        ready_s: server -> seconds from each start to the first answer of the default model.
        left_behind: server -> the most processes that outlived it.
        failures: server -> why it was not measured.
        offered: server -> pairs of the requests/s that were offered and what the open loop measured.
        memory: our server's memory; None if it was not measured.
    """

    machine: dict[str, str]
    command: str
    seconds: float
    versions: dict[str, str]
    loads: dict[str, dict[str, list[Load]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    ceilings: dict[str, list[Ceiling]] = field(default_factory=lambda: defaultdict(list))
    ready_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    left_behind: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    offered: dict[str, list[tuple[float, Load]]] = field(default_factory=lambda: defaultdict(list))
    memory: Memory | None = None

    def write(self, path: Path) -> None:
        """Writes `results.json`."""
        path.write_text(json.dumps(_plain(self), indent=1) + "\n", encoding="utf-8")

    def rate(self, workload: str, server: str) -> float | None:
        """Returns the median requests/s; None if it was not measured."""
        loads = self.loads[workload].get(server)
        return statistics.median(load.requests_per_s for load in loads) if loads else None

    def spread(self, workload: str, server: str) -> tuple[float, float]:
        """Returns the lowest and the highest requests/s."""
        rates = [load.requests_per_s for load in self.loads[workload][server]]
        return min(rates), max(rates)

    def p50_ms(self, workload: str, server: str) -> float:
        """Returns the median over the rounds of the median latency."""
        return statistics.median(load.p50_ms for load in self.loads[workload][server])

    def p99_ms(self, workload: str, server: str) -> float:
        """Returns the median over the rounds of the 99th percentile."""
        return statistics.median(load.p99_ms for load in self.loads[workload][server])

    def ceiling_rate(self, workload: str) -> float | None:
        """Returns the median images/s of the in-process loop."""
        rounds = self.ceilings.get(workload)
        return statistics.median(each.images_per_s for each in rounds) if rounds else None

    def ceiling_latency_ms(self, workload: str) -> float | None:
        """Returns the median over the rounds of the in-process loop's median latency."""
        rounds = self.ceilings.get(workload)
        return statistics.median(each.latency_ms for each in rounds) if rounds else None


def _plain(value: object) -> object:
    """Turns everything into JSON's types. JSON has no infinity: a server that answered nothing has no latency."""
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
