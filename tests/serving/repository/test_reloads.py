"""Models change again and again while clients ask: a version that was there gives each answer."""

import contextlib
import json
import random
import shutil
import threading
import time
from dataclasses import dataclass, field

import grpc
import httpx
import linear_files
import numpy as np
import onnx
import pytest

from keras_blocks.contract import METADATA_KEY, Contract, TensorSpec
from keras_blocks.serving.grpc.messages import SERVICE, message_class

from ..process.test_server import START_SECONDS, server, url_in

RELOADS, MANY_RELOADS = 10, 200
HIGHEST = 6  # version
X = [1.0, 2.0, 3.0, 4.0]
CLIENTS = {"http": 2, "grpc": 2}
LOOK_SECONDS = 0.02


@dataclass
class State:
    """What may have answered from when its files were changed until the next was known to.

    Each version of the model multiplies the sum of its input by a number of its own.
    """

    factors: dict
    begun: float
    ended: float = float("inf")


@dataclass
class Asked:
    """A request and what became of it; without a factor there was no such version."""

    version: int | None
    begun: float
    ended: float = 0.0
    answered: int | None = None
    factor: float | None = None

    def fits(self, state):
        if state.begun > self.ended or state.ended < self.begun:
            return False
        version = max(state.factors) if self.version is None else self.version
        if self.factor is None:
            return version not in state.factors
        return self.answered == version and state.factors.get(version) == self.factor


@dataclass
class Story:
    """A folder with one model that changes, and who asks it."""

    folder: object
    url: str
    client: httpx.Client
    address: str
    output: list
    states: list = field(default_factory=list)
    asked: list = field(default_factory=list)
    errors: list = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    # Those who ask

    def ask_http(self, seed):
        with httpx.Client(base_url=self.url, timeout=60) as client:

            def send(version, rows):
                path = "" if version is None else f"/versions/{version}"
                body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [rows, len(X)],
                                    "data": X * rows}]}  # fmt: skip
                answer = client.post(f"/v2/models/m{path}/infer", content=json.dumps(body))
                if answer.status_code == 404:
                    return None
                assert answer.status_code == 200, answer.text
                read = answer.json()
                return read["model_version"], read["outputs"][0]["data"]

            self._ask(send, seed)

    def ask_grpc(self, seed):
        with grpc.insecure_channel(self.address) as channel:
            infer = channel.unary_unary(
                f"/{SERVICE}/ModelInfer",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=message_class("ModelInferResponse").FromString,
            )

            def send(version, rows):
                request = message_class("ModelInferRequest")(model_name="m")
                request.model_version = "" if version is None else str(version)
                request.inputs.add(name="x", datatype="FP32", shape=[rows, len(X)])
                request.raw_input_contents.append(np.array(X * rows, "float32").tobytes())
                try:
                    answer = infer(request, timeout=60)
                except grpc.RpcError as error:
                    if error.code() is grpc.StatusCode.NOT_FOUND:
                        return None
                    raise
                return answer.model_version, np.frombuffer(answer.raw_output_contents[0], "float32")

            self._ask(send, seed)

    def _ask(self, send, seed):
        generator = random.Random(seed)
        try:
            while not self.stopping.is_set():
                version = generator.choice([None, *range(1, HIGHEST + 1)])
                asked = Asked(version, time.monotonic())
                if (got := send(version, generator.randrange(1, 4))) is not None:
                    asked.answered = int(got[0])
                    (product,) = set(np.asarray(got[1]).tolist())  # of one version, in every row
                    asked.factor = product / sum(X)
                asked.ended = time.monotonic()
                self.asked.append(asked)
        except Exception as error:
            self.errors.append(error)

    # What changes

    def write(self, version, factor):
        """In one step: who watches sees the old file or the new one."""
        path = self.folder / "m" / str(version) / "model.onnx"
        hidden = self.folder / "m" / ".next" / "model.onnx"
        linear_files.product(hidden, np.full((len(X), 2), factor, "float32"))
        if path.exists():
            hidden.replace(path)
        else:
            hidden.parent.replace(path.parent)

    def spoil(self, version, how):
        path = self.folder / "m" / str(version) / "model.onnx"
        if how == "truncated":
            path.write_bytes(path.read_bytes()[:-20])
            return "Protobuf parsing failed"
        model = onnx.load(path)
        other = TensorSpec("other", "float32", ("batch", len(X)))
        contract = Contract((other,), (TensorSpec("y", "float32", ("batch", 2)),))
        onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
        onnx.save(model, path)
        return "its contract names the inputs ['other']"

    def change(self, factor, generator, watched):
        """One file changes, comes or goes, and is known to when this returns."""
        old = self.states[-1].factors
        version = generator.randrange(1, HIGHEST + 1)
        goes = version in old and len(old) > 1 and generator.random() < 0.4
        new = {v: f for v, f in old.items() if v != version} | ({} if goes else {version: factor})
        self.states.append(State(new, time.monotonic()))
        if goes:
            shutil.rmtree(self.folder / "m" / str(version))
        else:
            self.write(version, factor)
        if not watched:
            self.load(200)
        self.until(lambda: all(self.shows(v, new.get(v)) for v in range(1, HIGHEST + 1)))
        self.states[-2].ended = time.monotonic()

    def break_one(self, generator, watched):
        """A file that cannot be served changes nothing, and is mended again."""
        before = len(self.output)
        factors = self.states[-1].factors
        version = generator.choice(sorted(factors))
        reason = self.spoil(version, generator.choice(["truncated", "contract"]))
        if watched:
            self.until(lambda: any("was not loaded" in li and reason in li
                                   for li in self.output[before:]))  # fmt: skip
        else:
            assert reason in self.load(400)
        assert all(self.shows(v, factors.get(v)) for v in range(1, HIGHEST + 1))
        self.write(version, factors[version])
        if not watched:
            self.load(200)

    def load(self, status):
        answer = self.client.post("/v2/repository/models/m/load")
        assert answer.status_code == status, answer.text
        return answer.json().get("error", "") if status != 200 else ""

    def shows(self, version, factor):
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, len(X)], "data": X}
        path = f"/v2/models/m/versions/{version}/infer"
        answer = self.client.post(path, json={"inputs": [tensor]})
        if answer.status_code == 404:
            return factor is None
        return answer.json()["outputs"][0]["data"] == [factor and sum(X) * factor] * 2

    def until(self, condition):
        ends = time.monotonic() + START_SECONDS
        while not condition():
            assert time.monotonic() < ends
            time.sleep(LOOK_SECONDS)


@contextlib.contextmanager
def running(folder, *options):
    linear_files.product(folder / "m" / "1" / "model.onnx", np.ones((len(X), 2), "float32"))
    with (
        server(folder, "--grpc-port", "0", *options) as (process, lines),
        httpx.Client(base_url=url_in(lines), timeout=60) as client,
    ):
        address = next(line.split()[2] for line in lines if line.startswith("gRPC on "))
        story = Story(folder, url_in(lines), client, address, [])
        reader = threading.Thread(target=lambda: story.output.extend(process.stdout))
        reader.start()
        try:
            yield story
        finally:
            process.terminate()
            process.wait(START_SECONDS)
            reader.join()


def run(story, reloads, watched):
    """Watched: each second change is found by watching, the others are asked for."""
    generator = random.Random(reloads)
    story.states.append(State({1: 1.0}, time.monotonic()))
    asks = [story.ask_http] * CLIENTS["http"] + [story.ask_grpc] * CLIENTS["grpc"]
    threads = [threading.Thread(target=ask, args=(seed,)) for seed, ask in enumerate(asks)]
    for thread in threads:
        thread.start()
    try:
        for number in range(reloads):
            by_watching = watched and number % 2 == 0
            if number % 5 == 4:
                story.break_one(generator, by_watching)
            story.change(number + 2.0, generator, by_watching)
    finally:
        story.stopping.set()
        for thread in threads:
            thread.join()
    assert story.errors == []
    assert len(story.asked) > reloads * len(threads)
    for asked in story.asked:
        assert any(asked.fits(state) for state in story.states), (asked, story.states)
    seen = {asked.factor for asked in story.asked if asked.version is None}
    assert len(seen) > reloads / 10, "the clients saw too few of the versions"


def test_every_answer_is_that_of_a_version_that_was_there(tmp_path):
    with running(tmp_path, "--watch-seconds", str(LOOK_SECONDS)) as story:
        run(story, RELOADS, watched=True)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_two_hundred_reloads_under_load_give_no_failed_and_no_wrong_answer(tmp_path, workers):
    # Of several workers one request sees one: only a load that was asked for is known to be over.
    seconds = LOOK_SECONDS if workers == 1 else 0
    with running(tmp_path, "--workers", str(workers), "--watch-seconds", str(seconds)) as story:
        run(story, MANY_RELOADS, watched=workers == 1)
