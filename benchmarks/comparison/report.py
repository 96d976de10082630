"""Writes `results.md`: what was measured, on which machine, and whether our targets were met.

Results -> targets: met or not -> tables, one for each workload -> what else was seen
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.comparison.results import Results
from benchmarks.comparison.servers import peer_kind
from benchmarks.comparison.workloads import MAX_MEMORY_GROWTH, MAX_P99_TO_P50, MAX_READY_S, Workload, compared_runs

_OURS, _OURS_BF16 = "ours", "ours_bf16"


@dataclass(frozen=True)
class Target:
    """What we mean to reach, and what came of it.

    Attributes:
        what: the target, in words.
        wanted: the figure that we mean to reach, in words.
        found: the figure that was measured, in words; None where it was not measured.
        met: whether it was reached.
    """

    what: str
    wanted: str
    found: str | None
    met: bool = False

    @property
    def verdict(self) -> str:
        """The table's word for whether the target was met."""
        return "not measured" if self.found is None else "met" if self.met else "**missed**"


def write(results: Results, workloads: list[Workload], path: Path) -> None:
    """Writes `results.md`."""
    path.write_text("\n".join(_page(results, workloads)) + "\n", encoding="utf-8")


def targets(results: Results, workloads: list[Workload]) -> list[Target]:
    """Returns every target and what came of it."""
    return [
        *(target for workload in workloads for target in _targets_of(results, workload)),
        _ready(results),
        _memory(results),
    ]


def _page(results: Results, workloads: list[Workload]) -> Iterator[str]:
    rounds = max((len(each) for loads in results.loads.values() for each in loads.values()), default=0)
    yield "# Our server and its peers"
    yield ""
    yield f"Written by `{results.command}`; how it measures: [README.md](README.md). Every figure: `results.json`."
    yield f"Rounds: {rounds}, of {results.seconds:g} s for each server and workload, taking turns, one server running"
    yield "at a time, on the machine that also sends the requests. Figures are medians of the rounds, the lowest and"
    yield "the highest in brackets; percentiles are medians of those of the rounds."
    yield ""
    for name, value in results.machine.items():
        yield f"- {name}: {value}"
    yield f"- peers: {', '.join(f'{name} {version}' for name, version in results.versions.items()) or 'none'}"
    yield ""
    yield from _target_table(targets(results, workloads))
    yield "![Throughput](throughput.svg)"
    yield ""
    if results.offered:
        yield "![Latency against load](latency.svg)"
        yield ""
    for workload in workloads:
        yield from _workload(results, workload)
    yield from _open_loop(results)
    yield from _remarks(results)


def _target_table(found: list[Target]) -> Iterator[str]:
    met = sum(target.met for target in found)
    measured = sum(target.found is not None for target in found)
    yield f"## Targets: {met} of {measured} met"
    yield ""
    yield "| target | wanted | found | |"
    yield "|---|---|---|---|"
    for target in found:
        yield f"| {target.what} | {target.wanted} | {target.found or '-'} | {target.verdict} |"
    yield ""
    yield "The best peer is the best of those configured as their documentation recommends; what an expert builds with"
    yield "the same engine (`mosec_openvino`) is in the tables below. Ceiling: the same work in one process, no HTTP."
    yield ""


def _targets_of(results: Results, workload: Workload) -> Iterator[Target]:
    our_name = _our_name(workload)
    if results.rate(workload.name, our_name) is None:
        yield Target(workload.title, "to be measured", None)
        return
    peer = _best_peer(results, workload)
    rate, p50_ms = results.rate(workload.name, our_name) or 0.0, results.p50_ms(workload.name, our_name)
    if workload.min_ratio_to_peer:
        what, wanted = f"{workload.title}: against the best peer", f">= {workload.min_ratio_to_peer:g}x"
        peer_rate = results.rate(*peer) if peer else None
        if peer is None or peer_rate is None:
            yield Target(what, wanted, None)
        else:
            ratio = rate / peer_rate
            yield Target(what, wanted, f"{ratio:.2f}x ({peer[1]})", ratio >= workload.min_ratio_to_peer)
    if workload.max_latency_ratio:
        what = f"{workload.title}: median latency against the best peer"
        wanted = f"<= {workload.max_latency_ratio:g}x"
        if peer is None:
            yield Target(what, wanted, None)
        else:
            ratio = p50_ms / results.p50_ms(*peer)
            yield Target(what, wanted, f"{ratio:.2f}x ({peer[1]})", ratio <= workload.max_latency_ratio)
    ceiling = results.ceiling_rate(workload.name)
    if workload.min_ratio_to_ceiling and ceiling:
        yield Target(
            f"{workload.title}: against the ceiling",
            f">= {workload.min_ratio_to_ceiling:g}",
            f"{rate / ceiling:.2f}",
            rate / ceiling >= workload.min_ratio_to_ceiling,
        )
    ceiling_ms = results.ceiling_latency_ms(workload.name)
    if workload.max_latency_over_ceiling_ms and ceiling_ms:
        over_ms = p50_ms - ceiling_ms
        yield Target(
            f"{workload.title}: median latency above the ceiling's",
            f"<= {workload.max_latency_over_ceiling_ms:g} ms",
            f"{over_ms:.1f} ms",
            over_ms <= workload.max_latency_over_ceiling_ms,
        )
    if workload.connections > 1:
        ratio = results.p99_ms(workload.name, our_name) / p50_ms
        yield Target(
            f"{workload.title}: p99 against the median",
            f"<= {MAX_P99_TO_P50:g}x",
            f"{ratio:.2f}x",
            ratio <= MAX_P99_TO_P50,
        )


def _ready(results: Results) -> Target:
    starts = results.ready_s.get(_OURS)
    what, wanted = "First answer after the start, EfficientNet-Lite0", f"<= {MAX_READY_S:g} s"
    if not starts:
        return Target(what, wanted, None)
    median = statistics.median(starts)
    return Target(what, wanted, f"{median:.1f} s ({min(starts):.1f} to {max(starts):.1f})", median <= MAX_READY_S)


def _memory(results: Results) -> Target:
    memory = results.memory
    wanted = f"<= {MAX_MEMORY_GROWTH - 1:.0%}"
    if memory is None:
        return Target("Growth of the resident memory", wanted, None)
    growth = memory.last_bytes / memory.first_bytes
    return Target(
        f"Growth of the resident memory from {memory.first_count:,} to {memory.last_count:,} requests",
        wanted,
        f"{growth - 1:+.1%} ({memory.first_bytes / 2**20:,.0f} to {memory.last_bytes / 2**20:,.0f} MiB, all processes)",
        growth <= MAX_MEMORY_GROWTH,
    )


def _workload(results: Results, workload: Workload) -> Iterator[str]:
    servers = results.loads.get(workload.name)
    if not servers:
        return
    compared = [(run.name, name) for run in compared_runs(workload) for name in results.loads[run.name]]
    compared.sort(key=lambda each: -(results.rate(*each) or 0.0))
    peer = _best_peer(results, workload)
    peer_rate = results.rate(*peer) if peer else None
    ceiling = results.ceiling_rate(workload.name)
    yield f"## {workload.title}"
    yield ""
    yield "| server | requests/s | p50 ms | p99 ms | to the best peer | to the ceiling |"
    yield "|---|---|---|---|---|---|"
    for name, server in compared:
        rate = results.rate(name, server) or 0.0
        lowest, highest = results.spread(name, server)
        to_peer = f"{rate / peer_rate:.2f}x" if peer_rate else "-"
        to_ceiling = f"{rate / ceiling:.2f}" if ceiling and workload.connections > 1 else "-"
        yield (
            f"| {server} | {rate:,.1f} ({lowest:,.1f} to {highest:,.1f}) | {results.p50_ms(name, server):,.1f} "
            f"| {results.p99_ms(name, server):,.1f} | {to_peer} | {to_ceiling} |"
        )
    yield ""
    rounds = results.ceilings.get(workload.name)
    if rounds:
        yield (
            f"In one process, no HTTP: {ceiling:,.1f} images/s ({min(each.images_per_s for each in rounds):,.1f} to "
            f"{max(each.images_per_s for each in rounds):,.1f}; {rounds[-1].setting}); one at a time "
            f"{results.ceiling_latency_ms(workload.name):.1f} ms ({rounds[-1].latency_setting})."
        )
        yield ""


def _open_loop(results: Results) -> Iterator[str]:
    if not results.offered:
        return
    yield "## Open loop: 640x480 JPEG, EfficientNet-Lite0"
    yield ""
    yield f"Requests evenly spaced for {results.seconds:g} s a rate, whatever the server does; latency from the"
    yield "time when each was due. One pass. A server that fails or falls behind is not offered more."
    yield ""
    yield "| server | offered/s | answered/s | p50 ms | p99 ms | refused or failed |"
    yield "|---|---|---|---|---|---|"
    for name, measured in results.offered.items():
        for offered, load in measured:
            yield (
                f"| {name} | {offered:.1f} | {load.requests_per_s:.1f} | {load.p50_ms:,.1f} | {load.p99_ms:,.1f} "
                f"| {load.failed:.0%} |"
            )
    yield ""


def _remarks(results: Results) -> Iterator[str]:
    yield "## What else was seen"
    yield ""
    for name, starts in results.ready_s.items():
        yield f"- {name}: first answer {statistics.median(starts):.1f} s after its start (EfficientNet-Lite0)."
    for name, count in results.left_behind.items():
        if count:
            yield f"- {name}: up to {count} processes outlived a SIGTERM to the one that was started, and were killed."
    for name, reason in results.failures.items():
        yield f"- {name} was not measured throughout: {reason}"
    yield "- ResNet-50 and the 3-block CNN have random weights; speed does not depend on them."


def _our_name(workload: Workload) -> str:
    return _OURS if workload.with_peers else _OURS_BF16


def _best_peer(results: Results, workload: Workload) -> tuple[str, str] | None:
    """Returns the workload and the name of the peer with the most requests/s."""
    names = [run.name for run in compared_runs(workload)]
    found = [(name, server) for name in names for server in results.loads[name] if peer_kind(server) == "peer"]
    return max(found, key=lambda each: results.rate(*each) or 0.0, default=None)
