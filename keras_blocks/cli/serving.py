"""The commands that answer: `predict` for one file of inputs, `serve` over HTTP. No TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keras_blocks.cli.options import FILE, NEW_FILE, as_json, usage_errors
from keras_blocks.errors import KerasBlocksError

if TYPE_CHECKING:
    from keras_blocks.contract import Contract

    Arrays = dict[str, Any]


def _file_or_url(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if "://" in value:
        return value
    return str(FILE.convert(value, parameter, context))


def _headers(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    headers = {}
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip() or any(ord(letter) < 32 for letter in text):
            raise click.BadParameter(f"'{text}' is no 'NAME: VALUE'")
        headers[name.strip()] = value.strip()
    return headers


@click.command()
@click.argument("model", callback=_file_or_url, metavar="MODEL.onnx|URL")
@click.argument("inputs", type=FILE, metavar="INPUT.json|.npz|.npy")
@click.option("-o", "--output", type=NEW_FILE, help="Write the outputs to a .json or .npz file.")
@click.option(
    "--api-key",
    default="",
    envvar="KERAS_BLOCKS_API_KEY",
    show_envvar=True,
    help="Key of the server at URL, where it wants one.",
)
@click.option(
    "--header",
    "headers",
    multiple=True,
    callback=_headers,
    metavar="'NAME: VALUE'",
    help="Send this header to the server at URL; repeatable.",
)
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Seconds to wait for each answer of the server at URL.",
)
@as_json
def predict(
    model: str,
    inputs: Path,
    output: Path | None,
    api_key: str,
    headers: dict[str, str],
    timeout: float,
    as_json: bool,
) -> None:
    """Run a model on one file of inputs, without TensorFlow.

    MODEL.onnx runs here; URL names a model of a running server, which is asked again later where it
    has too much to do.

    The JSON is {"input name": nested lists}; a ragged input is a list of rows of unequal length.
    The body of an infer request of the Open Inference Protocol is understood too. An .npz file
    holds one array per input, a ragged one as NAME and NAME.row_splits; an .npy file the array of
    a model's one input.

    \b
    echo '{"tokens": [[4, 7], [9]], "parents": [[-1, 0], [-1]]}' > input.json
    keras-blocks predict trees.onnx input.json
    keras-blocks predict trees.onnx input.json -o output.npz
    keras-blocks predict http://127.0.0.1:8080/v2/models/trees input.json --json
    """
    from keras_blocks.cli.display import show_outputs
    from keras_blocks.contract.array_files import nested, write_outputs

    if "://" in model:
        contract, outputs = _ask_server(
            model, inputs, api_key=api_key, headers=headers, timeout=timeout
        )
    else:
        contract, outputs = _run_here(model, inputs)
    if output is not None:
        write_outputs(output, contract, outputs)
    elif as_json:
        click.echo(json.dumps(nested(contract, outputs)))
    else:
        show_outputs(contract, outputs)


def _read(path: Path, contract: Contract) -> Any:
    """The inputs in a file, which may be the body of an infer request too."""
    from keras_blocks.contract.array_files import read_inputs
    from keras_blocks.serving.rest.codec import decode_request, is_request

    inputs = read_inputs(path, contract)
    return decode_request(inputs, contract).inputs if is_request(inputs) else inputs


def _run_here(path: str, inputs: Path) -> tuple[Contract, Arrays]:
    from keras_blocks.serving.model import Model

    model = Model.load(path)
    return model.contract, model.predict(_read(inputs, model.contract))


def _ask_server(url: str, inputs: Path, **options: Any) -> tuple[Contract, Arrays]:
    from keras_blocks.serving.client.client import Client, split_model_url

    with usage_errors():
        server, name, version = split_model_url(url)
    with Client(server, **options) as client:
        try:
            contract = client.contract(name, version)
            outputs = client.infer(name, _read(inputs, contract), version=version)
        except OSError as error:
            if getattr(error, "filename", None) is not None:  # that of the inputs
                raise
            raise KerasBlocksError(
                f"{server} does not answer ({error}); is a server running there?"
            ) from error
    return contract, outputs


def _base_path(context: click.Context, parameter: click.Parameter, value: str) -> str:
    return value and f"/{value.strip('/')}".rstrip("/")


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port of HTTP; 0 takes any free one.",
)
@click.option(
    "--grpc-port",
    type=click.IntRange(0, 65535),
    help="Port of gRPC; 0 takes any free one.  [default: the one after --port]",
)
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Processes that answer on the same ports; the cores are divided among them.",
)
@click.option(
    "--max-batch-size",
    default=64,
    show_default=True,
    type=click.IntRange(1),
    help="Most rows of one run; requests that arrive while a model runs share the next.",
)
@click.option(
    "--max-queue-delay-ms",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0),
    help="How long a request may wait for others to share a run with while nothing runs.",
)
@click.option(
    "--max-queue-size",
    default=1024,
    show_default=True,
    type=click.IntRange(1),
    help="Most requests that wait for a model; further ones get 429.",
)
@click.option(
    "--watch-seconds",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0),
    help="How often DIR is looked at for new and changed models; 0 for never.",
)
@click.option(
    "--model-control-mode",
    type=click.Choice(["none", "poll", "explicit"]),
    help="As Triton's. none: what DIR held at the start is served; poll: DIR is watched; explicit: "
    "requests load and unload models.  [default: DIR is watched, and requests load and unload]",
)
@click.option(
    "--load-model",
    "load_models",
    multiple=True,
    metavar="NAME",
    help="Load it at the start under --model-control-mode explicit; '*' for all. Repeatable.",
)
@click.option(
    "--admin-port",
    type=click.IntRange(0, 65535),
    help="Let requests load and unload models on this port only, by gRPC on the one after it; 0 "
    "takes free ones.",
)
@click.option(
    "--admin-host",
    default="127.0.0.1",
    show_default=True,
    help="Address that --admin-port listens on.",
)
@click.option(
    "--exit-timeout-secs",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0),
    help="How long requests in flight may take after SIGTERM.",
)
@click.option(
    "--allow-links", is_flag=True, help="Let models of DIR be links to files outside of it."
)
@click.option(
    "--api-keys",
    type=FILE,
    metavar="FILE",
    help="Answer only who sends one of its lines as 'Authorization: Bearer KEY'.",
)
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let web pages of this origin ask, as https://example.com; '*' for all. Repeatable.",
)
@click.option(
    "--base-path",
    default="",
    callback=_base_path,
    metavar="PATH",
    help="What a proxy leaves before each path, as /models.",
)
@click.option(
    "--certificate",
    type=(FILE, FILE),
    metavar="CERTIFICATE KEY",
    help="PEM files of a certificate and its private key: TLS for HTTP and gRPC.",
)
@click.option(
    "--client-ca",
    type=FILE,
    metavar="FILE",
    help="PEM file of authorities: answer only clients that show a certificate of theirs.",
)
@click.option(
    "--drain-seconds",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0),
    help="How long to take requests after SIGTERM, not ready, until balancers know.",
)
@click.option(
    "--log-format",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json"]),
    help="Lines of the log, on stderr; json: an object a line, and the start is one of them.",
)
@click.option("--access-log", is_flag=True, help="Log each request: its id, status and times.")
@click.option(
    "--max-body-mb",
    default=16.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Largest request body, in MiB; larger ones get 413.",
)
@click.option(
    "--max-answer-mb",
    default=128.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Largest arrays of an answer, in MiB; requests for more get 400.",
)
@click.option(
    "--max-steps",
    default=2**20,
    show_default=True,
    type=click.IntRange(1),
    help="Most steps of a request to a recurrent or ragged model, padding counted.",
)
@click.option(
    "--idle-timeout-secs",
    default=75.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="How long a connection stays open between requests; ten times as long over gRPC.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    help="Threads that one run may use; by default onnxruntime decides.",
)
def serve(
    directory: Path,
    host: str,
    port: int,
    grpc_port: int | None,
    workers: int,
    max_batch_size: int,
    max_queue_delay_ms: float,
    max_queue_size: int,
    watch_seconds: float,
    model_control_mode: str | None,
    load_models: tuple[str, ...],
    admin_port: int | None,
    admin_host: str,
    exit_timeout_secs: float,
    allow_links: bool,
    api_keys: Path | None,
    cors_origins: tuple[str, ...],
    base_path: str,
    certificate: tuple[Path, Path] | None,
    client_ca: Path | None,
    drain_seconds: float,
    log_format: str,
    access_log: bool,
    max_body_mb: float,
    max_answer_mb: float,
    max_steps: int,
    idle_timeout_secs: float,
    threads: int | None,
) -> None:
    """Serve the models of a folder over HTTP and gRPC, without TensorFlow.

    DIR holds <name>/<version>/model.onnx: any ONNX file, the highest version answering where none
    is asked for. The endpoints are those of the Open Inference Protocol v2. SIGTERM or Ctrl+C
    finishes what is in flight and ends. Infer requests are traced where OpenTelemetry's variable
    OTEL_EXPORTER_OTLP_ENDPOINT is set.

    \b
    keras-blocks export trees.keras -o models/trees/1/model.onnx
    keras-blocks serve models --port 8080
    curl http://127.0.0.1:8080/v2/models/trees

    http://127.0.0.1:8080 is a page to try the models: for each it has calls by curl, Python and
    gRPC to copy.
    """
    from keras_blocks.serving import BatchSettings, Limits
    from keras_blocks.serving import serve as serve_repository
    from keras_blocks.serving.auth import read_keys
    from keras_blocks.serving.telemetry.logs import log_start
    from keras_blocks.serving.transport.sockets import port_after

    serve_repository(
        directory,
        host=host,
        port=port,
        grpc_port=port_after(port, "--port") if grpc_port is None else grpc_port,
        workers=workers,
        model_control_mode=model_control_mode,
        load_models=load_models,
        admin_port=admin_port,
        admin_host=admin_host,
        exit_timeout_seconds=exit_timeout_secs,
        batching=BatchSettings(
            max_batch_size=max_batch_size,
            max_queue_delay_ms=max_queue_delay_ms,
            max_queue_size=max_queue_size,
        ),
        limits=Limits(
            body_bytes=int(max_body_mb * 2**20),
            answer_bytes=int(max_answer_mb * 2**20),
            padded_steps=max_steps,
            idle_seconds=idle_timeout_secs,
        ),
        threads=threads,
        watch_seconds=watch_seconds,
        keys=None if api_keys is None else read_keys(api_keys),
        allow_links=allow_links,
        cors_origins=cors_origins,
        base_path=base_path,
        certificate=certificate,
        client_ca=client_ca,
        drain_seconds=drain_seconds,
        log_format=log_format,
        access_log=access_log,
        on_start=log_start if log_format == "json" else _announce,
    )


def _announce(repository: Any, url: str, grpc: str | None) -> None:
    from keras_blocks.cli.display import announce  # it needs what the parent does not load

    announce(repository, url, grpc)
