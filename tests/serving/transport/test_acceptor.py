"""The last clients of a listening socket."""

import asyncio
import contextlib
import socket
import sys

import pytest

from keras_blocks.serving.transport.acceptor import Acceptor
from keras_blocks.serving.transport.sockets import open_listener, refuse_new

NO_ANSWER_SECONDS = 0.2


class Answers(asyncio.Protocol):
    announced = False

    def announce_end(self):
        self.announced = True


async def opened(listener, made):
    def make():
        made.append(Answers())
        return made[-1]

    door = Acceptor(listener, make, None)
    await door.open(shared=True)
    return door


async def let_in(made, count):
    async with asyncio.timeout(10):
        while len(made) < count:
            await asyncio.sleep(0.01)


def test_who_stands_before_a_shut_door_is_let_in_and_told_of_the_end():
    async def story():
        made = []
        with open_listener("127.0.0.1", 0) as listener, contextlib.ExitStack() as clients:
            door = await opened(listener, made)
            clients.enter_context(socket.create_connection(listener.getsockname()))
            await let_in(made, 1)
            assert not made[0].announced
            clients.enter_context(socket.create_connection(listener.getsockname()))
            door.shut()
            await let_in(made, 2)
            assert made[1].announced
            door.close()

    asyncio.run(story())


def test_a_door_that_closes_lets_in_all_who_stand_before_it():
    async def story():
        made = []
        with open_listener("127.0.0.1", 0) as listener, contextlib.ExitStack() as clients:
            door = await opened(listener, made)
            address = listener.getsockname()
            for _ in range(5):
                clients.enter_context(socket.create_connection(address))
            door.shut()
            await asyncio.gather(*door.close())
            assert len(made) == 5
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)

    asyncio.run(story())


@pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")
def test_a_socket_that_refuses_new_clients_keeps_those_that_came():
    with open_listener("127.0.0.1", 0) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()) as first:
            refuse_new(listener)
            with pytest.raises(TimeoutError):
                socket.create_connection(listener.getsockname(), NO_ANSWER_SECONDS)
            with listener.accept()[0] as accepted:
                first.sendall(b"asked")
                assert accepted.recv(10) == b"asked"
