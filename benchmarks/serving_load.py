"""Load on a server by wrk (HTTP) and h2load (gRPC), which Debian has as `wrk`, `nghttp2-client`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("wrk", "h2load")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True)
class Load:
    """What came of one burst.

    Args:
        rate: answers each second.
        p50: seconds, the median of the time to an answer; None where the tool does not say.
        p99: seconds.
        cpu: seconds of processor time of the server for each answer.
        failed: answers that were none, or not 200.
    """

    rate: float
    p50: float | None
    p99: float | None
    cpu: float
    failed: int


def missing_tools() -> list[str]:
    """The load generators that this machine lacks."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def drive_http(
    url: str,
    bodies: Sequence[bytes],
    headers: Mapping[str, str],
    connections: int,
    seconds: float,
    processes: Iterable[int],
) -> Load:
    """POSTs the bodies in turn over so many connections."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "post.lua"
        script.write_text(_lua(Path(folder), bodies, headers))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s"]
        pids = list(processes)
        before = cpu_seconds(pids)
        text = _run([*command, str(script), url])
        spent = cpu_seconds(pids) - before
    done = int(_found(r"(\d+) requests in", text))
    failed = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", text)))
    failed += sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", text)))
    return Load(
        float(_found(r"Requests/sec:\s+([\d.]+)", text)),
        _seconds(_found(r"(?m)^ +50% +(\S+)", text)),
        _seconds(_found(r"(?m)^ +99% +(\S+)", text)),
        spent / max(done, 1),
        failed,
    )


def drive_grpc(
    address: str, body: bytes, connections: int, seconds: float, processes: Iterable[int]
) -> Load:
    """Calls ModelInfer with the body over so many connections, one call at a time on each."""
    with tempfile.TemporaryDirectory() as folder:
        data, log = Path(folder) / "body", Path(folder) / "log"
        data.write_bytes(body)
        url = f"http://{address}/inference.GRPCInferenceService/ModelInfer"
        headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        command = ["h2load", "-t1", f"-c{connections}", "-m1", f"-D{seconds:g}"]
        pids = list(processes)
        before = cpu_seconds(pids)
        text = _run([*command, *headers, "-d", str(data), f"--log-file={log}", url])
        spent = cpu_seconds(pids) - before
        times = sorted(int(line.split()[2]) for line in log.read_text().splitlines())
    done = int(_found(r"(\d+) succeeded", text))
    failed = int(_found(r"(\d+) failed", text))
    return Load(
        done / seconds,
        times[len(times) // 2] / 1e6 if times else None,
        times[len(times) * 99 // 100] / 1e6 if times else None,
        spent / max(done, 1),
        failed,
    )


def cpu_seconds(processes: Iterable[int]) -> float:
    """The processor time that processes have taken."""
    ticks = 0
    for pid in processes:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _lua(folder: Path, bodies: Sequence[bytes], headers: Mapping[str, str]) -> str:
    """A wrk script; the bodies are files, as they may hold any bytes."""
    lines = ["local requests, turn = {}, 0", 'wrk.method = "POST"']
    lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
    names = []
    for index, body in enumerate(bodies):
        path = folder / f"body{index}"
        path.write_bytes(body)
        names.append(f'"{path}"')
    lines += [
        "init = function()",
        f"  for index, path in ipairs({{{', '.join(names)}}}) do",
        '    local file = io.open(path, "rb")',
        '    requests[index] = wrk.format(nil, nil, nil, file:read("*a"))',
        "    file:close()",
        "  end",
        "end",
        "request = function()",
        "  turn = turn % #requests + 1",
        "  return requests[turn]",
        "end",
    ]
    return "\n".join(lines)


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr or done.stdout}")
    return done.stdout


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"no {pattern!r} in what the load generator said:\n{text}")
    return match[1]


def _seconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(\D+)", text).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit]
