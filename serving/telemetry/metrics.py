"""The counts of all models in the text format of Prometheus."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable

from keras_blocks.runtime.malloc import resident_bytes
from keras_blocks.serving.inference.statistics import Counts, Histogram

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "keras_blocks"
_BEGAN = time.time()


def metrics_text(known: Counts) -> str:
    """What is known of each version of each model."""
    counts = [(_labels(model=name, version=str(v)), c) for (name, v), c in known.items()]
    requests = [
        (_join(labels, _labels(outcome=outcome)), value)
        for labels, c in counts
        for outcome, value in (
            ("success", c.success.count),
            ("fail", c.fail.count),
            ("refused", c.refused),
            ("expired", c.expired),
            ("cancelled", c.cancelled),
        )
    ]
    lines = [
        *_metric("requests_total", "counter", "Requests by their outcome.", requests),
        *_metric("rows_total", "counter", "Rows that were computed.",
                 [(labels, c.rows) for labels, c in counts]),
        *_metric("runs_total", "counter", "Runs of the graph, which requests may share.",
                 [(labels, c.runs) for labels, c in counts]),
        *_metric("waiting_requests", "gauge", "Requests in the queue now.",
                 [(labels, c.waiting) for labels, c in counts]),
        *_histogram("batch_rows", "Rows of a run.", [(n, c.batch_rows) for n, c in counts]),
        *_histogram("queue_seconds", "What requests waited.", [(n, c.queue) for n, c in counts]),
        *_histogram("request_seconds", "Waiting and computing of requests.",
                    [(n, c.latency) for n, c in counts]),
        *_histogram("compute_seconds", "What runs took.", [(n, c.run) for n, c in counts]),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def process_metrics() -> str:
    """What this process takes, in the names that Prometheus's own libraries give it."""
    used = time.process_time()
    figures = [
        ("cpu_seconds_total", "counter", "Processor time used.", used),
        ("start_time_seconds", "gauge", "When it began, since 1970.", _BEGAN),
        ("resident_memory_bytes", "gauge", "Memory held.", resident_bytes()),
        ("threads", "gauge", "Threads of Python.", threading.active_count()),
    ]
    with contextlib.suppress(OSError):
        files = len(os.listdir("/proc/self/fd"))
        figures.append(("open_fds", "gauge", "Open files and sockets.", files))
    lines = []
    for name, kind, about, value in figures:
        lines += [f"# HELP process_{name} {about}", f"# TYPE process_{name} {kind}"]
        # Of several processes on one address each answers for itself.
        lines.append(f"process_{name}{{{_labels(pid=str(os.getpid()))}}} {value:.16g}")
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, about: str, values: Iterable[tuple[str, float]]) -> Iterable[str]:
    yield f"# HELP {_PREFIX}_{name} {about}"
    yield f"# TYPE {_PREFIX}_{name} {kind}"
    for labels, value in values:
        yield f"{_PREFIX}_{name}{{{labels}}} {value:.16g}"


def _histogram(name: str, about: str, values: Iterable[tuple[str, Histogram]]) -> Iterable[str]:
    yield f"# HELP {_PREFIX}_{name} {about}"
    yield f"# TYPE {_PREFIX}_{name} histogram"
    for labels, histogram in values:
        for bound, count in histogram.cumulative():
            yield f"{_PREFIX}_{name}_bucket{{{_join(labels, _labels(le=bound))}}} {count}"
        yield f"{_PREFIX}_{name}_sum{{{labels}}} {histogram.total:.16g}"
        yield f"{_PREFIX}_{name}_count{{{labels}}} {histogram.count}"


def _labels(**labels: str) -> str:
    return ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())


def _join(*labels: str) -> str:
    return ",".join(labels)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
