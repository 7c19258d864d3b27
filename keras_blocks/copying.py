"""How layers are copied, stored and restored: with the same functions, and shared where they were.

By itself Keras stores a function by its name, under which an unregistered one is not found again,
and a layer that stands in two places as two layers. The private parts of Keras that this needs are
reached here alone.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.saving import serialization_lib

SHARED = "shared_layer"
"""The key in the config of a layer that stands in several places: one number for one layer."""

_KERAS_ID = "shared_object_id"
_IDS_TO_OBJECTS = "shared_objects/id_to_obj_map"
_IDS_TO_CONFIGS = "shared_objects/id_to_config_map"
_CUSTOM_OBJECTS = "custom_objects_scope_dict"
_LEGACY = "use_legacy_config"

_STORING: ContextVar[bool] = ContextVar("storing", default=False)


def unbuilt_copy(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A new layer of the same config, without weights yet unless it is a model that has them.

    It has the same functions, registered or not, and where a layer inside it stands twice, the new
    one does so too; nothing is shared with the old one.

    Raises:
        NotImplementedError: the layer, or one inside it, has no config to copy it by.
    """
    with _named_functions(layer) as named, extended_scope(named), _sharing({}, {}):
        try:
            config = _map_dicts(layer.get_config(), dict, _original)
        except NotImplementedError as error:
            raise NotImplementedError(
                f"layer '{layer.name}' (a {type(layer).__name__}) must be copied to find the shape "
                "of its output, or to be run both ways, but it cannot say its config. Give its "
                "class, and those of the layers inside, a `get_config` that returns the arguments "
                "of the constructor."
            ) from error
        with _sharing({}, None):
            return type(layer).from_config(config)


def extended_scope(custom_objects: dict[str, Any] | None) -> keras.saving.CustomObjectScope:
    """A scope with these custom objects beside those that are in scope already."""
    # Keras's own scope would hide those around it.
    around = global_state.get_global_attribute(_CUSTOM_OBJECTS, {})
    return keras.saving.CustomObjectScope({**around, **(custom_objects or {})})


def store_layers(layers: Sequence[Any]) -> list[dict[str, Any]]:
    """The configs of lifted layers, or of cells; a layer that stands twice says so, at any depth.

    While a model is saved, layers carry Keras's marks of shared objects, which hold in all of the
    model.
    """
    if _STORING.get():
        return [_store(layer) for layer in layers]  # the mechanism around it sees to the marks
    token = _STORING.set(True)
    try:
        # The configs of legacy files, .h5, have no marks.
        with _sharing({}, {}), _settings({_LEGACY: None}):
            for layer in layers:
                _store(layer)
            # All have been seen once now, so that Keras marks each of them.
            configs = [_store(layer) for layer in layers]
    finally:
        _STORING.reset(token)
    found = {id(inner): inner for layer in layers for inner in _flatten(layer)}
    times = Counter(config.get(_KERAS_ID) for config in _dicts(configs))
    shared = [one for one, count in times.items() if one in found and count > 1]
    saving = _is_saving()
    for config in _dicts(configs):
        one = config.pop(_KERAS_ID, None)
        if one in found and saving:
            serialization_lib.record_object_after_serialization(found[one], config)
            # Keras marks what it meets again, and loses the mark of the first time within configs.
            config[_KERAS_ID] = one
        elif one in shared:
            config[SHARED] = shared.index(one)
    return configs


def restore_layers(configs: Iterable[dict[str, Any]], custom_objects: Any = None) -> list[Any]:
    """The inverse of `store_layers`."""
    here = object()  # the numbers of one mechanism say nothing of those of another

    def with_id(config: dict[str, Any]) -> dict[str, Any]:
        if SHARED not in config:
            return config
        return {_KERAS_ID: (here, config[SHARED]), **_without(config, SHARED)}

    configs = _map_dicts(list(configs), with_id)
    restore = functools.partial(
        keras.saving.deserialize_keras_object, custom_objects=custom_objects
    )
    if global_state.get_global_attribute(_IDS_TO_OBJECTS) is not None:
        return [restore(config) for config in configs]
    with _sharing({}, None):
        return [restore(config) for config in configs]


def _store(layer: Any) -> dict[str, Any]:
    # The mechanism builds it. Left to itself Keras would call a layer built that has no `build` of
    # its own, and never make the weights of the layers inside.
    return _without(keras.saving.serialize_keras_object(layer), "build_config")


def _is_saving() -> bool:
    """Whether Keras saves a model, rather than making copies while it loads one."""
    saving = global_state.get_global_attribute(_IDS_TO_CONFIGS) is not None
    return saving and not global_state.get_global_attribute(_IDS_TO_OBJECTS)


def _sharing(objects: dict | None, configs: dict | None) -> contextlib.AbstractContextManager:
    """Within it Keras knows these shared objects, by id, and no others."""
    return _settings({_IDS_TO_OBJECTS: objects, _IDS_TO_CONFIGS: configs})


@contextlib.contextmanager
def _settings(inside: dict[str, Any]) -> Iterator[None]:
    """Within it Keras's global state has these values."""
    around = {key: global_state.get_global_attribute(key) for key in inside}
    try:
        for key, value in inside.items():
            global_state.set_global_attribute(key, value)
        yield
    finally:
        for key, value in around.items():
            global_state.set_global_attribute(key, value)


@contextlib.contextmanager
def _named_functions(layer: keras.layers.Layer) -> Iterator[dict[str, Any]]:
    """Within it the layer's functions have names of their own; gives what each name stands for.

    So a function is found again whatever it is called, and whether it can be stored or not. The
    classes of what cannot be registered by the user are there too.
    """
    named: dict[str, Any] = {}
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for inner in _flatten(layer):
            named.setdefault(type(inner).__name__, type(inner))
            attributes = vars(inner)
            for attribute, value in list(attributes.items()):
                if _is_own_function(value) and not callable(getattr(type(inner), attribute, None)):
                    function = _original(value)
                    name = f"keras_blocks.copying.{len(named)}"
                    named[name] = function
                    attributes[attribute] = _stand_in(function, name)
                    replaced.append((attributes, attribute, function))
                elif callable(value) and hasattr(value, "get_config"):
                    named.setdefault(type(value).__name__, type(value))
        yield named
    finally:
        for attributes, attribute, function in replaced:
            attributes[attribute] = function


def _is_own_function(value: Any) -> bool:
    """Whether it is a function that is not one of Keras's, or serves as one."""
    if not callable(value) or inspect.isclass(value) or hasattr(value, "get_config"):
        return False
    return (getattr(value, "__module__", None) or "").partition(".")[0] != "keras"


def _stand_in(function: Callable, name: str) -> Callable:
    """A function of another name that does the same, should it be called meanwhile."""

    def stand_in(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    stand_in.__name__ = name
    stand_in.stands_for = function  # type: ignore[attr-defined]
    return stand_in


def _original(value: Any) -> Any:
    return getattr(value, "stands_for", value) if inspect.isfunction(value) else value


def _flatten(layer: Any) -> list[keras.layers.Layer]:
    return layer._flatten_layers() if isinstance(layer, keras.layers.Layer) else []


def _without(config: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != key}


def _map_dicts(
    config: Any, change: Callable[[dict], dict], leaf: Callable[[Any], Any] = lambda value: value
) -> Any:
    """The config with each dict in it changed, and each value that is no dict, list or tuple."""
    if isinstance(config, dict):
        return {k: _map_dicts(value, change, leaf) for k, value in change(config).items()}
    if type(config) in (list, tuple):
        return type(config)(_map_dicts(value, change, leaf) for value in config)
    return leaf(config)


def _dicts(config: Any) -> list[dict[str, Any]]:
    """All dicts in a config, the outer ones first."""
    inner = list(config.values()) if isinstance(config, dict) else config
    found = [config] if isinstance(config, dict) else []
    if isinstance(inner, list | tuple):
        for value in inner:
            found += _dicts(value)
    return found
