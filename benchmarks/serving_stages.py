"""Our server with a clock in each stage of a request; where the processor time goes.

python benchmarks/serving_stages.py DIR PORT OUT.json
"""

from __future__ import annotations

import asyncio.selector_events
import functools
import json
import signal
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from keras_blocks.serving import serve
from keras_blocks.serving.inference.batcher import Batcher
from keras_blocks.serving.inference.service import Service
from keras_blocks.serving.model import Model
from keras_blocks.serving.rest import endpoints as rest
from keras_blocks.serving.transport.http1 import HttpConnection

TRANSPORT = asyncio.selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
STAGES: tuple[tuple[str, Any, str], ...] = (
    ("socket, read", TRANSPORT, "_read_ready"),
    ("HTTP, read", HttpConnection, "data_received"),
    ("path, model", rest.Rest, "_infer"),
    ("JSON, read", rest, "_from_json"),
    ("JSON to arrays", rest, "decode_request"),
    ("checks", Model, "check_decoded"),
    ("queue", Service, "infer"),
    ("join and split", Batcher, "_compute"),
    ("onnxruntime", Model, "run"),
    ("outcomes", Batcher, "_deliver"),
    ("arrays to JSON", rest, "encode_response"),
    ("JSON, write", rest, "_to_json"),
    ("HTTP, write", HttpConnection, "send"),
    ("socket, write", TRANSPORT, "write"),
)
REST = "event loop, kernel"


class Clock:
    """The processor time of each stage without that of the stages inside of it."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._threads = threading.local()

    def around(self, stage: str, home: Any, name: str) -> None:
        whole = getattr(home, name)

        @functools.wraps(whole)
        def timed(*args: Any, **kwargs: Any) -> Any:
            inside = self._threads.__dict__.setdefault("inside", [0.0])
            inside.append(0.0)
            begun = time.thread_time()
            try:
                return whole(*args, **kwargs)
            finally:
                took = time.thread_time() - begun
                self.spent[stage] += took - inside.pop()
                inside[-1] += took

        setattr(home, name, timed)


def main(directory: str, port: str, output: str) -> None:
    clock = Clock()
    for stage in STAGES:
        clock.around(*stage)
    begun = 0.0

    def start(*_: Any) -> None:
        nonlocal begun
        clock.spent.clear()
        begun = time.process_time()

    signal.signal(signal.SIGUSR1, start)
    serve(directory, port=int(port), threads=1, watch_seconds=0)
    whole = time.process_time() - begun
    spent = {stage: clock.spent[stage] for stage, _, _ in STAGES}
    Path(output).write_text(json.dumps({**spent, REST: whole - sum(spent.values())}))


if __name__ == "__main__":
    main(*sys.argv[1:])
