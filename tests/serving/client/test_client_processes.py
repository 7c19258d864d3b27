"""A client in several processes, threads and event loops: each gets its own answers."""

import asyncio
import copy
import pickle
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_files
import pytest

from keras_blocks.serving import AsyncClient, Client, load_repository

from ..conftest import running

ASK = """
import asyncio, os, sys, numpy
from keras_blocks.serving import AsyncClient, Client

def ask(client, first):
    for value in range(first, first + 200):
        answer = client.infer("double", numpy.full((1, 3), value, "float32"))["y"]
        assert (answer == 2 * value).all(), (value, answer)

async def ask_async(client, first):
    values = range(first, first + 50)
    calls = (client.infer("double", numpy.full((1, 3), value, "float32")) for value in values)
    for value, answer in zip(values, await asyncio.gather(*calls)):
        assert (answer["y"] == 2 * value).all(), (value, answer)
"""
FORKED = f"""{ASK}
def fork(work):
    child = os.fork()
    if not child:
        code = 1
        try:
            work(1000)
            code = 0
        finally:
            os._exit(code)
    work(0)
    assert os.waitpid(child, 0)[1] == 0

client = Client(sys.argv[1])
ask(client, 0)
fork(lambda first: ask(client, first))
kept = AsyncClient(sys.argv[1])
asyncio.run(ask_async(kept, 0))
fork(lambda first: asyncio.run(ask_async(kept, first)))
print("right")
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    onnx_files.double(folder / "double" / "1" / "model.onnx")
    with running(load_repository(folder, threads=1)) as url:
        yield url


def asked(client, value):
    return client.infer("double", np.full((1, 3), value, "float32"))["y"][0, 0]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_after_a_fork_each_process_reads_its_own_answers(url):
    done = subprocess.run(
        [sys.executable, "-c", FORKED, url], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "right\n", done.stderr


def test_a_pickled_and_a_copied_client_have_connections_of_their_own(url):
    with Client(url, api_key="k", timeout=30) as client:
        assert asked(client, 1) == 2
        for other in (pickle.loads(pickle.dumps(client)), copy.copy(client), copy.deepcopy(client)):
            with ThreadPoolExecutor(2) as threads:
                answers = threads.map(asked, [client, other] * 20, range(40))
                assert list(answers) == [2 * value for value in range(40)]
            other.close()


def test_a_client_whose_trust_cannot_be_pickled_says_so():
    with pytest.raises(TypeError, match="`tls` cannot be pickled; make one in each process"):
        pickle.dumps(Client("https://localhost", tls=ssl.create_default_context()))


def test_an_asyncio_client_goes_on_in_the_next_event_loop_and_can_be_pickled(url):
    client = AsyncClient(url, connections=2)

    async def ask(client):
        calls = [client.infer("double", np.full((1, 3), v, "float32")) for v in range(8)]
        return [float(answer["y"][0, 0]) for answer in await asyncio.gather(*calls)]

    async def leave_early():
        await asyncio.wait_for(ask(client), 1e-4)

    try:
        for turn in range(3):
            with pytest.raises(TimeoutError):
                asyncio.run(leave_early())
            assert asyncio.run(ask(client)) == [2.0 * value for value in range(8)], turn
        other = pickle.loads(pickle.dumps(client))
        assert asyncio.run(ask(other)) == [2.0 * value for value in range(8)]
        asyncio.run(other.close())
    finally:
        asyncio.run(client.close())


def test_a_closed_client_opens_new_connections_when_it_is_asked_again(url):
    client = Client(url)
    for value in (1, 2):
        assert asked(client, value) == 2 * value
        client.close()
