import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_files
import pytest
from onnx import TensorProto

from keras_blocks.errors import RunError
from keras_blocks.serving.errors import DeadlineError, OverloadedError, StoppingError
from keras_blocks.serving.inference.batch_check import checked_batch_plan
from keras_blocks.serving.inference.batcher import Batcher
from keras_blocks.serving.inference.request import QueuedRequest
from keras_blocks.serving.model import Model
from keras_blocks.serving.repository.model_settings import BatchSettings

REQUESTS = 3000
PATIENCE = 30  # seconds; the machine may be busy


class Gate:
    """Holds a model's runs until it is opened, and keeps what ran."""

    def __init__(self, model):
        self.opened = threading.Event()
        self.runs = []
        self._run = model.run
        model.run = self

    def __call__(self, inputs, outputs=None):
        self.runs.append(inputs)
        assert self.opened.wait(PATIENCE)
        return self._run(inputs, outputs)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def make(tmp_path, pool):
    """A batcher for a file of `onnx_files`; to be called on the event loop."""

    def make_batcher(name, *arguments, gated=False, **settings):
        path = getattr(onnx_files, name)(tmp_path / f"{name}.onnx", *arguments)
        model = Model.load(path, threads=1)
        plan = checked_batch_plan(model)
        gate = Gate(model) if gated else None
        settings = BatchSettings(**{"runs_at_once": 1, **settings})
        batcher = Batcher(model, plan, settings, pool)
        return (batcher, gate) if gated else batcher

    return make_batcher


def ask(batcher, inputs, timeout=None):
    """A job in the queue, and the future of its outcome."""
    future = asyncio.get_running_loop().create_future()
    job = QueuedRequest(inputs, batcher.model.output_names, future.set_result, timeout)
    batcher.submit(job)
    return job, future


def x(*rows):
    return {"x": np.array(rows, dtype="float32")}


def numbers(*rows):
    values = [value for row in rows for value in row]
    splits = np.cumsum([0, *map(len, rows)])
    return {"x": np.array(values, dtype="int32"), "x.row_splits": splits.astype("int64")}


def on_loop():
    return threading.current_thread() is threading.main_thread()


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


def sizes(gate):
    """The rows of each run."""
    return [len(inputs["x"]) for inputs in gate.runs]


# Every answer is the request's own


def random_inputs(name, generator):
    counts = [generator.randrange(5) for _ in range(generator.randrange(1, 4))]
    nodes = [count + 1 for count in counts]
    parents = [np.array([-1, *(generator.randrange(i + 1) for i in range(n))]) for n in counts]
    splits = np.cumsum([0, *nodes]).astype("int64")
    if name == "double":
        return x(*([generator.random() for _ in range(3)] for _ in counts))
    if name == "wide":
        return x(*[[generator.random()] * counts[0]] * len(counts))
    if name == "row_sums":
        return numbers(*([generator.randrange(10) for _ in range(count)] for count in counts))
    if name == "center":
        return x(*([generator.random() for _ in range(3)] for _ in counts))
    if name == "steps":
        return x(*([[generator.randrange(-3, 4)] * 2] * (counts[0] + 1) for _ in counts))
    tokens = np.array([generator.randrange(10) for _ in range(sum(nodes))], dtype="int32")
    return {
        "tokens": tokens,
        "tokens.row_splits": splits,
        "parents": np.concatenate(parents).astype("int32"),
        "parents.row_splits": splits,
    }


def test_thousands_of_mixed_requests_at_once_each_get_what_they_get_alone(make):
    generator = random.Random(5)

    async def all_at_once():
        names = ("double", "row_sums", "tree", "steps", "center")
        limits = {"max_queue_size": REQUESTS, "runs_at_once": 2}
        batchers = {name: make(name, **limits) for name in names}
        batchers["wide"] = make("identity", TensorProto.FLOAT, ["batch", "time"], **limits)
        asked = []
        for index in range(REQUESTS):
            name = generator.choice(list(batchers))
            inputs = random_inputs(name, generator)
            asked.append((name, inputs, ask(batchers[name], inputs)[1]))
            if index % 100 == 0:
                await asyncio.sleep(0)
        for name, inputs, future in asked:
            outcome = await future
            alone = batchers[name].model.run(inputs)
            assert list(outcome) == list(alone)
            for output, array in alone.items():
                np.testing.assert_array_equal(outcome[output], array)
                assert outcome[output].dtype == array.dtype
        return {name: batcher.statistics for name, batcher in batchers.items()}

    statistics = asyncio.run(all_at_once())
    assert sum(counts.success.count for counts in statistics.values()) == REQUESTS
    center = statistics.pop("center")
    assert center.runs == center.success.count  # its rows see one another
    for counts in statistics.values():
        assert counts.runs < counts.success.count / 2  # they did share runs
    assert statistics["wide"].runs >= 4  # one for each width at least


def test_a_request_that_fails_leaves_its_companions_their_answers(make):
    async def ask_three():
        batcher, gate = make("gather", gated=True)
        gate.opened.set()
        places = [[0, 2], [7], [1]]
        futures = [ask(batcher, {"x": np.array(place)})[1] for place in places]
        return await asyncio.gather(*futures), gate.runs

    (good, bad, other), runs = asyncio.run(ask_three())
    assert good["y"].tolist() == [[0, 1], [4, 5]]
    assert isinstance(bad, RunError)
    assert "idx=7" in str(bad)
    assert other["y"].tolist() == [[2, 3]]
    assert [len(inputs["x"]) for inputs in runs] == [4, 2, 1, 1]


def test_each_gets_the_outputs_it_asked_for(make):
    async def ask_two():
        batcher = make("add_bias")
        inputs = {**x([1, 2]), "bias": np.array([[10]], dtype="float32")}
        futures = []
        for names in (["minus_x"], ["y", "minus_x"]):
            future = asyncio.get_running_loop().create_future()
            batcher.submit(QueuedRequest(inputs, names, future.set_result))
            futures.append(future)
        return await asyncio.gather(*futures)

    one, both = asyncio.run(ask_two())
    assert {name: array.tolist() for name, array in one.items()} == {"minus_x": [[-1, -2]]}
    assert list(both) == ["y", "minus_x"]


def test_a_request_without_rows_runs_alone(make):
    async def ask_three():
        batcher = make("row_sums")
        asked = [numbers([1]), numbers(), numbers([2, 3])]
        outcomes = await asyncio.gather(*(ask(batcher, inputs)[1] for inputs in asked))
        return [outcome["y"].tolist() for outcome in outcomes], batcher.statistics.runs

    assert asyncio.run(ask_three()) == ([[1], [], [5]], 2)


def test_unequal_lengths_of_a_masked_model_run_together(make):
    async def ask_four():
        batcher, gate = make("steps", gated=True)
        gate.opened.set()
        asked = [x([[n, 1]] * steps) for n, steps in ((1, 4), (2, 7), (0, 5), (3, 6))]
        outcomes = await asyncio.gather(*(ask(batcher, inputs)[1] for inputs in asked))
        return [inputs["x"].shape for inputs in gate.runs], outcomes

    shapes, outcomes = asyncio.run(ask_four())
    assert shapes == [(4, 7, 2)]
    assert [outcome["y"].tolist() for outcome in outcomes] == [
        [[4, 4]],
        [[14, 7]],
        [[0, 5]],
        [[18, 6]],
    ]
    assert [outcome["z"].shape for outcome in outcomes] == [
        (1, 4, 2),
        (1, 7, 2),
        (1, 5, 2),
        (1, 6, 2),
    ]


# When runs start, and what they hold


def test_what_arrives_while_the_model_runs_runs_together_next(make):
    async def ask_nine():
        batcher, gate = make("double", gated=True)
        first = ask(batcher, x([1, 1, 1]))[1]
        await until(lambda: gate.runs)
        later = [ask(batcher, x([i, i, i]))[1] for i in range(8)]
        await asyncio.sleep(0.02)
        assert batcher.waiting == 8
        gate.opened.set()
        outcomes = await asyncio.gather(first, *later)
        return sizes(gate), [outcome["y"][0, 0] for outcome in outcomes]

    assert asyncio.run(ask_nine()) == ([1, 8], [2, 0, 2, 4, 6, 8, 10, 12, 14])


def test_a_run_holds_at_most_so_many_rows_and_a_larger_request_runs_alone(make):
    async def ask_some():
        batcher, gate = make("double", gated=True, max_batch_size=4)
        gate.opened.set()
        futures = [ask(batcher, x(*[[1, 2, 3]] * rows))[1] for rows in (1, 2, 2, 9, 1, 3)]
        await asyncio.gather(*futures)
        return sizes(gate)

    assert asyncio.run(ask_some()) == [3, 2, 9, 4]


def test_a_run_holds_at_most_so_many_ragged_elements(make):
    async def ask_some():
        batcher, gate = make("row_sums", gated=True, max_batch_elements=6)
        gate.opened.set()
        futures = [ask(batcher, numbers([1] * n))[1] for n in (3, 3, 4, 50, 1)]
        await asyncio.gather(*futures)
        return [len(inputs["x"]) for inputs in gate.runs]

    assert asyncio.run(ask_some()) == [6, 4, 50, 1]


def test_other_shapes_get_their_turn_beside_a_stream_of_equal_ones(make):
    async def ask_some():
        batcher, gate = make(
            "identity", TensorProto.FLOAT, ["batch", "time"], gated=True, max_batch_size=2
        )
        gate.opened.set()
        futures = [ask(batcher, x([1, 2]))[1] for _ in range(6)] + [ask(batcher, x([1, 2, 3]))[1]]
        await asyncio.gather(*futures)
        return [inputs["x"].shape for inputs in gate.runs]

    assert asyncio.run(ask_some()) == [(2, 2), (1, 3), (2, 2), (2, 2)]


def test_an_idle_model_waits_only_where_a_delay_is_set(make):
    async def seconds_of_one(**settings):
        batcher = make("double", **settings)
        await ask(batcher, x([1, 1, 1]))[1]
        started = asyncio.get_running_loop().time()
        await ask(batcher, x([1, 1, 1]))[1]
        return asyncio.get_running_loop().time() - started

    assert min(asyncio.run(seconds_of_one()) for _ in range(3)) < 0.05
    assert asyncio.run(seconds_of_one(max_queue_delay_ms=200)) >= 0.2


def test_with_a_delay_requests_wait_for_company_until_the_run_is_full(make):
    async def ask_five():
        batcher, gate = make("double", gated=True, max_queue_delay_ms=300, max_batch_size=4)
        gate.opened.set()
        futures = []
        for _ in range(5):
            futures.append(ask(batcher, x([1, 1, 1]))[1])
            await asyncio.sleep(0.005)
        assert sizes(gate) == [4]
        await asyncio.gather(*futures)
        return sizes(gate)

    assert asyncio.run(ask_five()) == [4, 1]


def test_a_short_run_stays_on_the_event_loop_and_a_long_one_leaves_it(make):
    async def threads():
        batcher = make("double")
        seen, run = [], batcher.model.run

        def watched(*arguments):
            seen.append(on_loop())
            return run(*arguments)

        batcher.model.run = watched
        while True not in seen:
            await ask(batcher, x([1, 1, 1]))[1]
        seen.clear()
        await ask(batcher, x([1, 1, 1]))[1]
        await ask(batcher, x(*[[1, 1, 1]] * 100_000))[1]
        slow, slow_seen = make("slow"), []
        slow_run = slow.model.run
        slow.model.run = lambda *arguments: slow_seen.append(on_loop()) or slow_run(*arguments)
        for _ in range(5):
            await ask(slow, {"steps": np.array([1])})[1]
        seen_of_expand, expand = [], make("expand")
        expand_run = expand.model.run
        expand.model.run = lambda *given: seen_of_expand.append(on_loop()) or expand_run(*given)
        for _ in range(5):
            await ask(expand, {"shape": np.array([1])})[1]
        return seen, slow_seen, seen_of_expand

    seen, *by_value = asyncio.run(threads())
    assert seen == [True, False]
    assert by_value == [[False] * 5] * 2  # their time depends on what is in a tensor


# What does not wait


def test_a_full_queue_refuses_at_once_and_recovers(make):
    async def overload():
        batcher, gate = make("double", gated=True, max_queue_size=2)
        futures = [ask(batcher, x([1, 1, 1]))[1]]
        await until(lambda: gate.runs)
        futures += [ask(batcher, x([1, 1, 1]))[1] for _ in range(2)]
        with pytest.raises(OverloadedError, match="2 requests waiting, at most 2 may"):
            ask(batcher, x([1, 1, 1]))
        gate.opened.set()
        await asyncio.gather(*futures)
        await ask(batcher, x([1, 1, 1]))[1]
        return batcher.statistics

    statistics = asyncio.run(overload())
    assert (statistics.refused, statistics.success.count) == (1, 4)


def test_a_cancelled_request_leaves_the_queue_and_makes_room(make):
    async def cancel():
        batcher, gate = make("double", gated=True, max_queue_size=2)
        first = ask(batcher, x([1, 1, 1]))[1]
        await until(lambda: gate.runs)
        dropped, silent = ask(batcher, x([2, 2, 2]))
        kept = ask(batcher, x([3, 3, 3]))[1]
        batcher.cancel(dropped)
        assert batcher.waiting == 1
        other = ask(batcher, x([4, 4, 4]))[1]
        gate.opened.set()
        await asyncio.gather(first, kept, other)
        assert not silent.done()
        return gate.runs[1]["x"][:, 0].tolist(), batcher.statistics.cancelled

    assert asyncio.run(cancel()) == ([3, 4], 1)


def test_a_request_is_told_when_its_time_is_over_waiting_or_running(make):
    async def expire():
        batcher, gate = make("double", gated=True)
        running = ask(batcher, x([1, 1, 1]), timeout=0.1)[1]
        await until(lambda: gate.runs)
        waiting = ask(batcher, x([1, 1, 1]), timeout=0.1)[1]
        patient = ask(batcher, x([1, 1, 1]))[1]
        outcomes = [await running, await waiting]
        assert batcher.waiting == 1
        gate.opened.set()
        await patient
        return outcomes, batcher.statistics.expired

    outcomes, expired = asyncio.run(expire())
    assert [type(outcome) for outcome in outcomes] == [DeadlineError, DeadlineError]
    assert expired == 2


def test_an_answer_that_cannot_be_delivered_does_not_keep_back_the_others(make):
    async def deliver():
        problems = []
        asyncio.get_running_loop().set_exception_handler(lambda _, it: problems.append(it))
        batcher = make("double")
        batcher.submit(QueuedRequest(x([1, 1, 1]), ["y"], lambda _: 1 / 0))
        await ask(batcher, x([1, 1, 1]))[1]
        return [type(problem["exception"]) for problem in problems]

    assert asyncio.run(deliver()) == [ZeroDivisionError]


def test_a_model_that_stops_finishes_its_queue_and_takes_no_more(make):
    async def stop():
        batcher, gate = make("double", gated=True, max_queue_delay_ms=60_000)
        futures = [ask(batcher, x([1, 1, 1]))[1] for _ in range(3)]
        stopping = asyncio.create_task(batcher.stop())
        await asyncio.sleep(0.02)
        with pytest.raises(StoppingError, match="'double'"):
            ask(batcher, x([1, 1, 1]))
        assert not stopping.done()
        gate.opened.set()
        await stopping
        return [future.done() for future in futures]

    assert asyncio.run(stop()) == [True, True, True]
