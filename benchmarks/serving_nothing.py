"""A server that does nothing: the HTTP layer of ours with one constant answer.

python benchmarks/serving_nothing.py PORT
"""

from __future__ import annotations

import asyncio
import sys

from keras_blocks.serving.limits import Limits
from keras_blocks.serving.transport.exchange import HttpExchange
from keras_blocks.serving.transport.head_cache import HeadCache
from keras_blocks.serving.transport.http1 import HttpConnection


def answer(exchange: HttpExchange) -> None:
    exchange.respond(200, b"{}")


async def main() -> None:
    limits, heads = Limits(), HeadCache()
    server = await asyncio.get_running_loop().create_server(
        lambda: HttpConnection(
            answer, lambda exchange, _: answer(exchange), lambda *_: None, limits, set(), heads
        ),
        "127.0.0.1",
        int(sys.argv[1]),
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
