"""Servers side by side: one-row requests in JSON, in binary and over gRPC, and mixed lengths.

\b
    python benchmarks/serving.py --setup-peers peers    # makes the peers' environments, once
    python benchmarks/serving.py --peers peers          # all, about a quarter of an hour a round
    python benchmarks/serving.py --quick                # short bursts and one round, to see it run
    python benchmarks/serving.py --only triton          # beside ours and the bounds, that one
    python benchmarks/serving.py --write-docs           # docs/serving.md from the saved results

Models: `tiny` (64 -> 128 -> 10), `seq` (embedding, LSTM 64, 32 steps) and `mixed` (the same over 4
to 128 steps). Ours has as many processes as cores, and once one; Triton and Mosec have one instance
of a model, and once as many as cores. wrk drives HTTP and h2load gRPC, each on one thread (Debian:
`apt install wrk nghttp2-client`); server and load share the machine. Bounds: a server that does
nothing, and onnxruntime alone on rows in a loop. onnxruntime has one thread everywhere. The servers
take turns, so that the machine's moods fall on all alike; figures are medians over the rounds.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import serving_servers as servers
from harness import RESULTS, describe, save, surroundings
from rich.console import Console
from serving_load import Load, drive_grpc, drive_http, missing_tools
from serving_models import (
    MIXED,
    arrays,
    binary_body,
    build,
    grpc_body,
    json_body,
    model_file,
    mosec_body,
)

DOCS = Path(__file__).parent.parent / "docs" / "serving.md"
CONNECTIONS = (1, 8, 32, 128)
MIXED_CONNECTIONS = 32
GOALS = (
    *(((m, "JSON", n), "triton", 1.0) for m in ("tiny", "seq") for n in (32, 128)),
    *(((m, "JSON", n), "mosec", 1.2) for m in ("tiny", "seq") for n in (32, 128)),
    *(((m, "binary", n), "triton", 1.2) for m in ("tiny", "seq") for n in (32, 128)),
    *(((m, "gRPC", n), "triton", 0.8) for m in ("tiny", "seq") for n in (32, 128)),
    *(((m, p, 1), "triton", 1.0) for m in ("tiny", "seq") for p in ("JSON", "binary", "gRPC")),
    (("mixed", "JSON", MIXED_CONNECTIONS), "triton", 2.0),
)
PACKAGES = ("onnxruntime", "numpy", "orjson", "httptools", "protobuf", "hpack")
JSON = {"Content-Type": "application/json"}


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, help=f"\b\n{__doc__}")
@click.option("--quick", is_flag=True, help="One round, of 2 seconds at 1 and 32 connections.")
@click.option("--seconds", default=8.0, show_default=True, help="Length of a burst.")
@click.option("--rounds", default=3, show_default=True, help="How many turns each server has.")
@click.option("--only", default="", help="Only peers with this in their name.", metavar="NAME")
@click.option("--peers", "folder", type=click.Path(path_type=Path), help="Made by --setup-peers.")
@click.option(
    "--setup-peers", "setup", type=click.Path(path_type=Path), metavar="DIR",
    help="Makes the peers' environments there with pip, and does nothing else.",
)  # fmt: skip
@click.option(
    "--models", type=click.Path(path_type=Path), metavar="DIR",
    help="Where the exported models are kept; made there if missing.",
)  # fmt: skip
@click.option("--write-docs", is_flag=True, help="Write docs/serving.md, run nothing.")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, show_default=False)
def main(
    quick: bool,
    seconds: float,
    rounds: int,
    only: str,
    folder: Path | None,
    setup: Path | None,
    models: Path | None,
    write_docs: bool,
    output: Path,
) -> None:
    """Race the servers."""
    console = Console()
    if write_docs:
        shutil.copy(output / "serving.md", DOCS)
        console.print(f"Wrote {DOCS}")
        return
    if setup:
        set_up(setup)
        return
    if lacking := missing_tools():
        names = ", ".join(lacking)
        raise click.ClickException(f"{names} not found: apt install wrk nghttp2-client")
    bursts = (2.0, (1, MIXED_CONNECTIONS)) if quick else (seconds, CONNECTIONS)
    rounds = 1 if quick else rounds
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        repository = (models or work / "models").absolute()
        build(repository)
        facts = surroundings(PACKAGES)
        console.print(describe(facts), highlight=False, soft_wrap=True)
        found = contestants(repository, work, folder, only)
        for turn, (name, start) in itertools.product(range(rounds), found.items()):
            try:
                with start() as server:
                    for row in race(name, server, *bursts):
                        rows.append(row)
                        console.print(f"{turn + 1}. {line(row)}", highlight=False, soft_wrap=True)
            except (RuntimeError, OSError, StopIteration) as error:
                console.print(f"{turn + 1}. {name} does not take part: {error}", soft_wrap=True)
        rows = medians(rows)
        rows += list(alone(repository, bursts[0]))
        stages = stages_of(repository, bursts[0])
    record = {"surroundings": facts, "seconds": bursts[0], "rounds": rounds, "rows": rows,
              "stages": stages}  # fmt: skip
    spans = f"Bursts of {bursts[0]:g} s, each figure the median of {rounds}, the servers in turn"
    paths = save("serving", record, report(rows, stages, facts, spans), output)
    console.print(f"Saved {', '.join(map(str, paths))}", highlight=False, soft_wrap=True)


def contestants(
    repository: Path, work: Path, folder: Path | None, only: str
) -> dict[str, Callable[[], contextlib.AbstractContextManager[servers.Server]]]:
    """Ours, the bound, and the peers whose environment is there."""
    cores = os.cpu_count() or 1
    found: dict[str, Any] = {
        "ours": functools.partial(servers.ours, repository, cores),
        "ours, 1 process": functools.partial(servers.ours, repository, 1),
        "nothing": functools.partial(servers.nothing, repository),
    }
    for name in servers.PEERS:
        python = folder / name / "bin" / "python" if folder else None
        if python is not None and python.exists() and only.lower() in name:
            start = functools.partial(getattr(servers, name), repository, python, work)
            if name == "mlserver":
                found[name] = start
                continue
            found[name] = functools.partial(start, 1)
            found[f"{name}, {cores} instances"] = functools.partial(start, cores)
    return found


def race(
    name: str, server: servers.Server, seconds: float, connections: tuple[int, ...]
) -> Iterator[dict[str, Any]]:
    """All bursts of one server."""
    for model in ("tiny", "seq"):
        body = json_body(model) if server.protocol else mosec_body(model)
        servers.wait_for_answer(server, model, body, JSON)
        url = server.url + server.path(model)
        for count in connections:
            load = drive_http(url, [body], JSON, count, seconds, server.processes())
            yield row_of(name, model, "JSON", count, load)
        if server.binary:
            binary, length = binary_body(model)
            headers = {
                "Content-Type": "application/octet-stream",
                "Inference-Header-Content-Length": str(length),
            }
            for count in connections:
                load = drive_http(url, [binary], headers, count, seconds, server.processes())
                yield row_of(name, model, "binary", count, load)
        if server.grpc is not None:
            for count in connections:
                message = grpc_body(model)
                load = drive_grpc(server.grpc, message, count, seconds, server.processes())
                yield row_of(name, model, "gRPC", count, load)
    if server.mixed is not None:
        bodies = [json_body(server.mixed, seed) for seed in range(MIXED)]
        url = server.url + server.path(server.mixed)
        servers.wait_for_answer(server, server.mixed, bodies[0], JSON)
        load = drive_http(url, bodies, JSON, MIXED_CONNECTIONS, seconds, server.processes())
        yield row_of(name, "mixed", "JSON", MIXED_CONNECTIONS, load)


def stages_of(repository: Path, seconds: float) -> dict[str, float]:
    """Microseconds of each stage of a request, where we do worst."""
    with servers.ours_with_clocks(repository) as (server, read):
        body = json_body("seq")
        servers.wait_for_answer(server, "seq", body, JSON)
        server.process.send_signal(signal.SIGUSR1)
        url = server.url + server.path("seq")
        load = drive_http(url, [body], JSON, CONNECTIONS[-1], seconds, server.processes())
        spent = read()
    return {stage: took / (load.rate * seconds) * 1e6 for stage, took in spent.items()}


def alone(repository: Path, seconds: float) -> Iterator[dict[str, Any]]:
    """onnxruntime without a server, a row at a time."""
    import onnxruntime
    from one_thread import session_options

    options = session_options()
    for model in ("tiny", "seq", "ragged"):
        path = str(model_file(repository, model))
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        requests = [arrays(model, seed) for seed in range(MIXED)]
        runs, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            session.run(["y"], requests[runs % MIXED])
            runs += 1
        spent = (time.perf_counter() - started) / runs
        load = Load(1 / spent, spent, None, spent, 0)
        yield row_of("onnxruntime", model, "none", 1, load)


def row_of(server: str, model: str, protocol: str, connections: int, load: Load) -> dict[str, Any]:
    return {
        "server": server,
        "model": model,
        "protocol": protocol,
        "connections": connections,
        **vars(load),
    }


def medians(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row in the place of those of each server and contest; all that failed is counted."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["server"], _contest(row)), []).append(row)
    merged = []
    for group in groups.values():
        middle = dict(group[0], failed=sum(row["failed"] for row in group))
        for key in ("rate", "p50", "p99", "cpu"):
            known = [row[key] for row in group if row[key] is not None]
            middle[key] = statistics.median(known) if known else None
        merged.append(middle)
    return merged


def line(row: dict[str, Any]) -> str:
    failed = f", {row['failed']} FAILED" if row["failed"] else ""
    return (
        f"{row['server']}, {row['model']}, {row['protocol']}, {row['connections']} connections: "
        f"{row['rate']:.0f}/s, p50 {_ms(row['p50'])}, p99 {_ms(row['p99'])}, "
        f"{row['cpu'] * 1e6:.0f} us of CPU each{failed}"
    )


def report(
    rows: list[dict[str, Any]], stages: dict[str, float], facts: dict[str, Any], spans: str
) -> str:
    """One table; `ours / it` is our rate by the row's, in the same contest."""
    ours = {_contest(row): row["rate"] for row in rows if row["server"] == "ours"}
    lines = [
        "# Serving",
        "",
        describe(facts),
        "",
        f"{spans}. The processor time is that of the server, in all its processes.",
        "",
        "## Goals",
        "",
        "Our rate by that of the peer's better setting; at one connection the peer's better median "
        "by ours.",
        "",
        "| contest | peer | at least | reached |",
        "| --- | --- | ---: | ---: |",
        *(
            f"| {model}, {protocol}, {count} | {peer} | {least} | {_reached(rows, contest, peer)} |"
            for contest, peer, least in GOALS
            for model, protocol, count in [contest]
        ),
        "",
        "## Where the time goes",
        "",
        f"Processor time of a request to `seq` in JSON at {CONNECTIONS[-1]} connections, in one of "
        "our processes; the clocks themselves are in it.",
        "",
        "| stage | us |",
        "| --- | ---: |",
        *(f"| {stage} | {us:.1f} |" for stage, us in stages.items()),
        f"| all | {sum(stages.values()):.1f} |",
        "",
        "## All bursts",
        "",
        "`ours / it`: our rate by the row's.",
        "",
        "| server | model | protocol | connections | requests/s | p50 ms | p99 ms | CPU us each "
        "| ours / it | failed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        rate = ours.get(_contest(row))
        ratio = "" if rate is None or row["server"] == "ours" else f"{rate / row['rate']:.2f}"
        lines.append(
            f"| {row['server']} | {row['model']} | {row['protocol']} | {row['connections']} "
            f"| {row['rate']:.0f} | {_ms(row['p50'])} | {_ms(row['p99'])} "
            f"| {row['cpu'] * 1e6:.0f} | {ratio} | {row['failed'] or ''} |"
        )
    return "\n".join(lines) + "\n"


def _reached(rows: list[dict[str, Any]], contest: tuple[str, str, int], peer: str) -> str:
    """Our figure by the best of the peer's; at one connection the medians of the time."""
    key, better = ("p50", min) if contest[2] == 1 else ("rate", max)
    found = [row for row in rows if _contest(row) == contest and row[key] is not None]
    ours = [row[key] for row in found if row["server"] == "ours"]
    theirs = [row[key] for row in found if row["server"].startswith(peer)]
    if not ours or not theirs:
        return ""
    ratio = ours[0] / better(theirs)
    return f"{1 / ratio if key == 'p50' else ratio:.2f}"


def set_up(folder: Path) -> None:
    """An environment for each peer."""
    for name, packages in servers.PEERS.items():
        subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
        python = folder / name / "bin" / "python"
        subprocess.run([str(python), "-m", "pip", "install", *packages.split()], check=True)


def _contest(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["model"], row["protocol"], row["connections"]


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.2f}"


if __name__ == "__main__":
    main()
