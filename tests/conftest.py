import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import pytest
import tensorflow as tf

# The tests run in two processes on two cores.
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)


@pytest.fixture(autouse=True)
def _fresh_keras():
    keras.utils.set_random_seed(7)
    yield
    keras.config.set_dtype_policy("float32")
    # Collecting garbage after every test would take half of the time of the whole suite.
    keras.utils.clear_session(free_memory=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """In CI nothing is skipped for what could have been installed: such reasons begin with
    "needs", and fail there.
    """
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "needs " in reason:
            report.outcome, report.longrepr = "failed", f"In CI this is installed: {reason}"
    return report
