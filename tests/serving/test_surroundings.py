"""Cores, counts, paths and names: what a server takes from around it and shows to others."""

import re

import httpx
import numpy as np
import onnx_files
import pytest
from click.testing import CliRunner

from keras_blocks.cli.main import main
from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.contract.validation import InputChecks, check_names
from keras_blocks.errors import ContractError, ModelLoadError
from keras_blocks.runtime.cores import available_cores
from keras_blocks.runtime.session import _plain
from keras_blocks.serving import Client, Limits, Model, load_repository
from keras_blocks.serving.repository.model_settings import read_settings
from keras_blocks.serving.transport.sockets import open_listener

from .conftest import running

# Cores


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


CGROUPS = {
    "none": ({}, "0::/\n", 64),
    "no quota": ({"cpu.max": "max 100000"}, "0::/\n", 64),
    "a quota": ({"cpu.max": "150000 100000"}, "0::/\n", 2),
    "less than a core": ({"cpu.max": "20000 100000"}, "0::/\n", 1),
    "that of a parent": ({"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 1"}, "0::/a/b\n", 3),
    "the first version": (
        {"cpu/d/cpu.cfs_quota_us": "400000", "cpu/d/cpu.cfs_period_us": "100000"},
        "4:memory:/x\n3:cpu,cpuacct:/d\n",
        4,
    ),
    "the first without one": (
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        "3:cpu:/\n",
        64,
    ),
    "nonsense": ({"cpu.max": "x y"}, "z", 64),
}


@pytest.mark.parametrize("case", CGROUPS)
def test_cores_are_counted_by_the_quota_of_the_cgroup(case, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    files, member, expected = CGROUPS[case]
    for name, text in files.items():
        write(tmp_path / "cgroup" / name, text)
    write(tmp_path / "member", member)
    assert available_cores(tmp_path / "cgroup", tmp_path / "member") == expected


def test_cores_are_counted_by_the_affinity(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert available_cores(tmp_path, tmp_path / "none") == 2


# Paths, labels, headers, metrics


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    onnx_files.double(folder / "double" / "1" / "model.onnx")
    onnx_files.add_bias(folder / "double" / "2" / "model.onnx")
    (folder / "double" / "model.toml").write_text("[labels]\nstable = 1\ncanary = 2\n")
    limits = Limits(body_bytes=1000)
    with running(load_repository(folder, threads=1), limits=limits) as url:
        yield url


def test_a_slash_at_the_end_changes_nothing_and_models_are_listed(url):
    for path in ("/v2", "/v2/health/live", "/v2/models", "/v2/models/double", "/metrics"):
        plain, slashed = httpx.get(url + path), httpx.get(f"{url}{path}/")
        assert (plain.status_code, slashed.status_code) == (200, 200), path
    assert httpx.get(f"{url}/v2/models").json() == {"models": ["double"]}


def test_a_version_is_asked_for_by_its_label(url):
    for label, inputs in (("stable", ["x"]), ("canary", ["x", "bias"])):
        metadata = httpx.get(f"{url}/v2/models/double/versions/{label}").json()
        assert [tensor["name"] for tensor in metadata["inputs"]] == inputs
    missing = httpx.get(f"{url}/v2/models/double/versions/beta")
    assert missing.status_code == 404
    assert "its versions are 1, 2, canary, stable" in missing.json()["error"]


@pytest.mark.parametrize("labels", ["labels = 3", "[labels]\n3 = 1", "[labels]\nstable = 'x'"])
def test_labels_that_cannot_be_are_told(labels, tmp_path):
    (tmp_path / "model.toml").write_text(labels)
    with pytest.raises(ModelLoadError, match="labels"):
        read_settings(tmp_path)


def test_metrics_say_what_the_process_takes(url):
    text = httpx.get(f"{url}/metrics").text
    found = dict(re.findall(r"^process_(\w+)\{.*\} (\S+)$", text, re.MULTILINE))
    assert float(found["resident_memory_bytes"]) > 2**20
    assert float(found["cpu_seconds_total"]) > 0
    assert {"start_time_seconds", "open_fds", "threads"} <= set(found)


def test_a_client_sends_the_headers_it_is_given(url, tmp_path, monkeypatch):
    sent = []
    import http.client

    request = http.client.HTTPConnection.request
    monkeypatch.setattr(
        http.client.HTTPConnection,
        "request",
        lambda self, method, path, body, headers: (
            sent.append(headers),
            request(self, method, path, body, headers),
        )[1],
    )
    with Client(url, headers={"X-Team": "a"}, api_key="k") as client:
        client.infer("double", [[1, 2, 3]], version=1)
    assert all(h["X-Team"] == "a" and h["Authorization"] == "Bearer k" for h in sent)
    np.save(tmp_path / "x.npy", np.ones((1, 3), "float32"))
    model, file = f"{url}/v2/models/double/versions/1", str(tmp_path / "x.npy")
    result = CliRunner().invoke(main, ["predict", model, file, "--header", "X-Run: 7", "--json"])
    assert (result.exit_code, sent[-1]["X-Run"]) == (0, "7"), result.output
    assert CliRunner().invoke(main, ["predict", model, file, "--header", "x"]).exit_code == 2


# Messages


def test_a_body_over_the_limit_is_told_by_which_option_it_would_pass(url):
    refused = httpx.post(f"{url}/v2/models/double/infer", content=b" " * 1001)
    assert (refused.status_code, "--max-body-mb" in refused.json()["error"]) == (413, True)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
@pytest.mark.parametrize(
    ("option", "other"), [("--port", "--host"), ("--grpc-port", "--host"),
                          ("--admin-port", "--admin-host")],
)  # fmt: skip
def test_a_host_that_is_none_is_no_taken_port(host, option, other):
    with pytest.raises(OSError, match=f"choose another {other}$"):
        open_listener(host, 0, option)


def test_a_missing_input_and_an_unknown_one_are_both_told():
    contract = Contract((TensorSpec("tokens", "int32", ("n",)),), ())
    with pytest.raises(ContractError, match="'tokens' is missing and input 'token' is unknown"):
        check_names(contract, ["token"])


def test_a_value_out_of_bounds_is_told_by_row_and_place():
    spec = TensorSpec("x", "int32", ("n", 3), minimum=0, maximum=9)
    x = {"x": np.array([[1, 2, 3], [4, 55, 6]], "int32")}
    with pytest.raises(ContractError, match=r"element 4 is 55 \(row 1, place 1\)"):
        InputChecks(Contract((spec,), ())).check(x)


def test_of_a_long_message_of_onnxruntime_the_remedy_is_kept():
    text = _plain(RuntimeError("what is wrong " * 100 + "call this to mend it"))
    assert text.startswith("what is wrong")
    assert text.endswith("call this to mend it")
    assert len(text) < 700


def test_a_models_threads_follow_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_blocks.runtime.session.available_cores", lambda: 1)
    model = Model.load(onnx_files.double(tmp_path / "m.onnx"))
    assert model.predict([[1, 2, 3]])["y"].tolist() == [[2, 4, 6]]
