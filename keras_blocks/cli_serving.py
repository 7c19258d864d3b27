"""The commands that answer: `predict` for one file of inputs, `serve` over HTTP. No TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path

import click

from keras_blocks.cli_options import FILE, NEW_FILE, as_json


@click.command()
@click.argument("onnx_file", type=FILE, metavar="MODEL.onnx")
@click.argument("inputs", type=FILE, metavar="INPUT.json|INPUT.npz")
@click.option("-o", "--output", type=NEW_FILE, help="Write the outputs to a .json or .npz file.")
@as_json
def predict(onnx_file: Path, inputs: Path, output: Path | None, as_json: bool) -> None:
    """Run an ONNX file on one file of inputs, without TensorFlow.

    The JSON is {"input name": nested lists}; a ragged input is a list of rows of unequal length.
    The body of an infer request of the Open Inference Protocol is understood too. An .npz file
    holds one array per input, a ragged one as NAME and NAME.row_splits.

    \b
    echo '{"tokens": [[4, 7], [9]], "parents": [[-1, 0], [-1]]}' > input.json
    keras-blocks predict trees.onnx input.json
    keras-blocks predict trees.onnx input.json -o output.npz
    """
    from keras_blocks.serving.display import show_outputs
    from keras_blocks.serving.files import nested, read_inputs, write_outputs
    from keras_blocks.serving.model import Model

    model = Model.load(onnx_file)
    outputs = model.predict(read_inputs(inputs, model.contract))
    if output is not None:
        write_outputs(output, model.contract, outputs)
    elif as_json:
        click.echo(json.dumps(nested(model.contract, outputs)))
    else:
        show_outputs(model.contract, outputs)


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
    "--api-keys",
    type=FILE,
    metavar="FILE",
    help="Answer only who sends one of its lines as 'Authorization: Bearer KEY'.",
)
@click.option(
    "--certificate",
    type=(FILE, FILE),
    metavar="CERTIFICATE KEY",
    help="PEM files of a certificate and its private key: TLS for HTTP and gRPC.",
)
@click.option(
    "--max-body-mb",
    default=16.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Largest request body, in MiB; larger ones get 413.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="Threads that one run may use; by default onnxruntime decides.",
)
def serve(
    directory: Path,
    host: str,
    port: int,
    grpc_port: int | None,
    max_batch_size: int,
    max_queue_delay_ms: float,
    max_queue_size: int,
    watch_seconds: float,
    api_keys: Path | None,
    certificate: tuple[Path, Path] | None,
    max_body_mb: float,
    threads: int | None,
) -> None:
    """Serve the models of a folder over HTTP and gRPC, without TensorFlow.

    DIR holds <name>/<version>/model.onnx: any ONNX file, the highest version answering where none
    is asked for. The endpoints are those of the Open Inference Protocol v2. SIGTERM or Ctrl+C
    finishes what is in flight and ends.

    \b
    keras-blocks export trees.keras -o models/trees/1/model.onnx
    keras-blocks serve models --port 8080
    curl http://127.0.0.1:8080/v2/models/trees
    """
    from keras_blocks.serving import BatchSettings, Limits
    from keras_blocks.serving import serve as serve_repository
    from keras_blocks.serving.access import read_keys
    from keras_blocks.serving.display import announce

    serve_repository(
        directory,
        host=host,
        port=port,
        grpc_port=port and port + 1 if grpc_port is None else grpc_port,
        batching=BatchSettings(
            max_batch_size=max_batch_size,
            max_queue_delay_ms=max_queue_delay_ms,
            max_queue_size=max_queue_size,
        ),
        limits=Limits(body_bytes=int(max_body_mb * 2**20)),
        threads=threads,
        watch_seconds=watch_seconds,
        keys=None if api_keys is None else read_keys(api_keys),
        certificate=certificate,
        on_start=announce,
    )
