"""A worker for the conformance run that dies, hangs or answers, as the case is named."""

import os
import time


def serve(pipe):
    pipe.send("ready")
    while True:
        task = pipe.recv()
        if task is None:
            pipe.send([{"case": "one"}])
        elif task.case == "dies":
            os._exit(3)
        elif task.case == "hangs":
            time.sleep(60)
        else:
            pipe.send({"status": "right", "reason": "", "loops": 0})


def serve_not(pipe):
    os._exit(1)
