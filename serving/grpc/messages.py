"""The messages of the Open Inference Protocol over gRPC, with Triton's extensions.

They are written down here as text and made into classes at import, in a pool of their own: a
program may hold another package's classes of the same names.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

# name=number:type; a * repeats, a | is one of several alternatives, map: is from strings.
_MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live=1:bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready=1:bool",
    "ModelReadyRequest": "name=1:string version=2:string",
    "ModelReadyResponse": "ready=1:bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name=1:string version=2:string extensions=3:*string",
    "ModelMetadataRequest": "name=1:string version=2:string",
    "TensorMetadata": "name=1:string datatype=2:string shape=3:*int64",
    "ModelMetadataResponse": "name=1:string versions=2:*string platform=3:string "
    "inputs=4:*TensorMetadata outputs=5:*TensorMetadata",
    "InferParameter": "bool_param=1:|bool int64_param=2:|int64 string_param=3:|string "
    "double_param=4:|double uint64_param=5:|uint64",
    "InferTensorContents": "bool_contents=1:*bool int_contents=2:*int32 int64_contents=3:*int64 "
    "uint_contents=4:*uint32 uint64_contents=5:*uint64 fp32_contents=6:*float "
    "fp64_contents=7:*double bytes_contents=8:*bytes",
    "InferInputTensor": "name=1:string datatype=2:string shape=3:*int64 "
    "parameters=4:map:InferParameter contents=5:InferTensorContents",
    "InferRequestedOutputTensor": "name=1:string parameters=2:map:InferParameter",
    "ModelInferRequest": "model_name=1:string model_version=2:string id=3:string "
    "parameters=4:map:InferParameter inputs=5:*InferInputTensor "
    "outputs=6:*InferRequestedOutputTensor raw_input_contents=7:*bytes",
    "InferOutputTensor": "name=1:string datatype=2:string shape=3:*int64 "
    "parameters=4:map:InferParameter contents=5:InferTensorContents",
    "ModelInferResponse": "model_name=1:string model_version=2:string id=3:string "
    "parameters=4:map:InferParameter outputs=5:*InferOutputTensor raw_output_contents=6:*bytes",
    "ModelStreamInferResponse": "error_message=1:string infer_response=2:ModelInferResponse",
    "ModelConfigRequest": "name=1:string version=2:string",
    "ModelConfigResponse": "config=1:ModelConfig",
    "TensorReshape": "shape=1:*int64",
    "ModelInput": "name=1:string data_type=2:DataType dims=4:*int64 reshape=5:TensorReshape",
    "ModelOutput": "name=1:string data_type=2:DataType dims=3:*int64 reshape=5:TensorReshape",
    "ModelInstanceGroup": "name=1:string count=2:int32 kind=4:InstanceKind",
    "ModelDynamicBatching": "max_queue_delay_microseconds=2:uint64",
    "ModelConfig": "name=1:string platform=2:string max_batch_size=4:int32 input=5:*ModelInput "
    "output=6:*ModelOutput instance_group=7:*ModelInstanceGroup "
    "default_model_filename=8:string dynamic_batching=11:ModelDynamicBatching backend=17:string",
    "ModelStatisticsRequest": "name=1:string version=2:string",
    "StatisticDuration": "count=1:uint64 ns=2:uint64",
    "InferStatistics": "success=1:StatisticDuration fail=2:StatisticDuration "
    "queue=3:StatisticDuration compute_input=4:StatisticDuration "
    "compute_infer=5:StatisticDuration compute_output=6:StatisticDuration "
    "cache_hit=7:StatisticDuration cache_miss=8:StatisticDuration",
    "InferBatchStatistics": "batch_size=1:uint64 compute_input=2:StatisticDuration "
    "compute_infer=3:StatisticDuration compute_output=4:StatisticDuration",
    "ModelStatistics": "name=1:string version=2:string last_inference=3:uint64 "
    "inference_count=4:uint64 execution_count=5:uint64 inference_stats=6:InferStatistics "
    "batch_stats=7:*InferBatchStatistics",
    "ModelStatisticsResponse": "model_stats=1:*ModelStatistics",
    "RepositoryIndexRequest": "repository_name=1:string ready=2:bool",
    "ModelIndex": "name=1:string version=2:string state=3:string reason=4:string",
    "RepositoryIndexResponse": "models=1:*ModelIndex",
    "ModelRepositoryParameter": "bool_param=1:|bool int64_param=2:|int64 string_param=3:|string "
    "bytes_param=4:|bytes",
    "RepositoryModelLoadRequest": "repository_name=1:string model_name=2:string "
    "parameters=3:map:ModelRepositoryParameter",
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": "repository_name=1:string model_name=2:string "
    "parameters=3:map:ModelRepositoryParameter",
    "RepositoryModelUnloadResponse": "",
    "HealthCheckRequest": "service=1:string",
    "HealthCheckResponse": "status=1:int32",
}
_DATA_TYPES = (
    *("INVALID", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "STRING", "BF16"),
)
_ENUMS = {
    "DataType": {f"TYPE_{name}": number for number, name in enumerate(_DATA_TYPES)},
    "InstanceKind": {"KIND_AUTO": 0, "KIND_GPU": 1, "KIND_CPU": 2, "KIND_MODEL": 3},
}
_Field = descriptor_pb2.FieldDescriptorProto
_REPEATED, _OPTIONAL = _Field.LABEL_REPEATED, _Field.LABEL_OPTIONAL


def _make_file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="keras_blocks/inference.proto", package=PACKAGE, syntax="proto3"
    )
    for name, values in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields.split():
            _add_field(message, *field.replace("=", ":", 1).split(":", 2))
    return file


def _add_field(message: descriptor_pb2.DescriptorProto, name: str, number: str, kind: str) -> None:
    if kind.startswith("map:"):
        entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        _add_field(entry, "key", "1", "string")
        _add_field(entry, "value", "2", kind.removeprefix("map:"))
        kind = f"*{message.name}.{entry.name}"
    field = message.field.add(name=name, number=int(number))
    field.label = _REPEATED if kind.startswith("*") else _OPTIONAL
    if kind.startswith("|"):
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    kind = kind.lstrip("*|")
    if kind.islower() or kind[-1].isdigit():
        field.type = getattr(_Field, f"TYPE_{kind.upper()}")
    else:
        field.type = _Field.TYPE_ENUM if kind in _ENUMS else _Field.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_make_file())


def message_class(name: str) -> Any:
    """The class of a message.

    Example:
        >>> message_class("ServerLiveResponse")(live=True).SerializeToString().hex()
        '0801'
    """
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
