"""Which integers a model takes, found by trying, where its inputs are places, segments or lengths.

Nothing in such a model says so but its refusal: an index is out of range, a value has no entry. So
one value after the other is tried, on Keras alone: first the same everywhere, then outwards from it
until one is refused, in between which the last that is taken lies.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.contract.sampling.plans import Plan, dense
from keras_blocks.contract.sampling.samples import Feed, Sample, draw_samples
from keras_blocks.contract.sampling.values import kind_of
from keras_blocks.export.signature.signature import Signature
from keras_blocks.export.signature.value_ranges import origin_of
from keras_blocks.export.verification.keras_side import KerasRunner
from keras_blocks.runtime.runner import SampleRejectedError

_FIRST = (0, 1, 2, 3, 5, 10, 100, 1000, -1)  # values that may be taken
_MOST_TRIES = 256  # of them, where several inputs must fit together
_FARTHEST = 2**20  # how far the end of a range is looked for
_SECONDS = 0.1  # a call that takes longer grows with the value, which is a length
_ATTEMPTS = ("as drawn", "from the tables", "rising along rows", "rising within rows", "all equal")

Range = tuple[int | None, int | None]
"""The least and the greatest value that is taken; None where no end was found."""


def with_accepted_ranges(model: keras.Model, signature: Signature) -> Signature:
    """The signature whose contract has the ranges of integers that the model takes at any size.

    Args:
        model: the Keras model.
        signature: its signature; inputs whose ranges it knows stay as they are.
    """
    contract = signature.contract
    free = free_integers(contract)
    if not free:
        return signature
    search = ValueSearch(KerasRunner(model, signature, signature.traced))
    found: dict[str, Range] | None = None
    for plan in _plans(contract):
        for sample in draw_samples(contract, 0, (plan,)):
            ranges = search.ranges(sample.feed)
            if ranges is None or (found is not None and ranges != found):
                return signature  # it hangs on the sizes
            found = ranges
    if found is None:
        return signature
    specs = tuple(
        replace(spec, minimum=found[spec.name][0], maximum=found[spec.name][1])
        if spec.name in found and search.is_whole(spec.name, found[spec.name])
        else spec
        for spec in contract.inputs
    )
    return replace(signature, contract=replace(contract, inputs=specs))


def free_integers(contract: Contract) -> list[TensorSpec]:
    """The inputs of integers of which nothing is known."""
    return [
        spec
        for spec in contract.inputs
        if _is_integer(spec) and spec.minimum is None and spec.maximum is None
    ]


def _is_integer(spec: TensorSpec) -> bool:
    return kind_of(spec) in "iu" and not (spec.tree_of or spec.edges_of)


class ValueSearch:
    """Tries integers on a model.

    Args:
        side: the Keras model.
    """

    def __init__(self, side: KerasRunner):
        self.side = side
        self.contract = side.signature.contract
        self.free = free_integers(self.contract)
        self.integers = [spec for spec in self.contract.inputs if _is_integer(spec)]
        self._keys = _table_keys(side.signature)
        self._took = 0.0

    def ranges(self, feed: Feed) -> dict[str, Range] | None:
        """What each free input may be, the others being what is taken; None where nothing is.

        Where all that is usually drawn is taken, nothing is looked for.
        """
        base = self._base(feed)
        if base is None:
            return None
        found: dict[str, Range] = {}
        for spec in self.free:
            value = int(base[spec.name].flat[0]) if base[spec.name].size else 0

            def takes(number: int, spec: TensorSpec = spec, base: Feed = base) -> bool:
                return self._takes({**base, spec.name: np.full_like(base[spec.name], number)})

            info = np.iinfo(spec.dtype)
            found[spec.name] = (
                _end(takes, value, -1, info.min, self),
                _end(takes, value, 1, info.max, self),
            )
        return found

    def is_whole(self, name: str, found: Range) -> bool:
        """Whether no entry of an input's table lies outside of a range: there are no gaps in it."""
        low, high = found
        inside = [
            (low is None or key >= low) and (high is None or key <= high)
            for key in self._keys.get(name, [])
        ]
        return all(inside) and found != (None, None)

    def narrowed(self, sample: Sample, seed: int) -> Iterator[Sample]:
        """Samples of the same shapes with integers that the model takes, the most telling first."""
        if not self.integers or sample.plan is None:
            return
        ranges = self.ranges(sample.feed)
        if ranges is None:
            return
        specs = tuple(
            replace(spec, minimum=ranges[spec.name][0], maximum=ranges[spec.name][1])
            if spec.name in ranges
            else spec
            for spec in self.contract.inputs
        )
        drawn = draw_samples(replace(self.contract, inputs=specs), seed, (sample.plan,))
        for other in drawn:
            for attempt in _ATTEMPTS:
                feed = self._attempt(attempt, other.feed, ranges)
                if self._takes(feed):
                    said = f"{sample.description}, integers that the model takes"
                    yield replace(sample, description=said, feed=feed)
                    return

    def _attempt(self, attempt: str, drawn: Feed, ranges: dict[str, Range]) -> Feed:
        if attempt == "all equal":
            return {**drawn, **self._equal(drawn)}
        feed = dict(drawn)
        generator = np.random.default_rng(0)
        for name in (spec.name for spec in self.integers):
            values = drawn[name]
            if attempt == "from the tables" and name in self._keys:
                feed[name] = generator.choice(self._keys[name], values.shape).astype(values.dtype)
            elif attempt == "rising along rows" and values.ndim:
                feed[name] = np.sort(values, axis=0)
            elif attempt == "rising within rows" and values.ndim:
                feed[name] = np.sort(values, axis=-1)
        return feed

    def _base(self, feed: Feed) -> Feed | None:
        """The feed with one value in each free input that is taken, of the first that are tried."""
        tried = [self._keys.get(spec.name, [])[:3] or list(_FIRST) for spec in self.free]
        equal = zip(*tried, strict=False)
        mixed = () if len(self.free) == 1 else itertools.product(*tried)
        for values in itertools.islice(itertools.chain(equal, mixed), _MOST_TRIES):
            other = {**feed, **self._equal(feed)}
            for spec, value in zip(self.free, values, strict=True):
                if np.iinfo(spec.dtype).min <= value <= np.iinfo(spec.dtype).max:
                    other[spec.name] = np.full_like(feed[spec.name], value)
            if self._takes(other):
                return other
        return None

    def _equal(self, feed: Feed) -> Feed:
        """The least value of each input of integers everywhere in it."""
        values = {spec.name: feed[spec.name] for spec in self.integers}
        return {n: np.full_like(v, v.min()) for n, v in values.items() if v.size}

    def _takes(self, feed: Feed) -> bool:
        started = time.perf_counter()
        try:
            self.side.run_traced(feed)
        except SampleRejectedError:
            return False
        finally:
            self._took = time.perf_counter() - started
        return True

    @property
    def slow(self) -> bool:
        """Whether the last call took long: larger values would take longer yet."""
        return self._took > _SECONDS


def _end(
    takes: Callable[[int], bool], start: int, direction: int, last: int, search: ValueSearch
) -> int | None:
    """The last value that is taken in a direction, or None where none is refused."""
    step, inside = 1, start
    while step <= _FARTHEST and abs(last - start) > step:
        if not takes(start + direction * step):
            break
        inside = start + direction * step
        if search.slow:
            return None
        step *= 2
    else:
        return None
    outside = start + direction * step
    while abs(outside - inside) > 1:
        middle = (inside + outside) // 2
        if takes(middle):
            inside = middle
        else:
            outside = middle
    return inside


def _plans(contract: Contract) -> tuple[Plan, ...]:
    """Two shapes of which no size is the same."""
    if any(spec.ragged for spec in contract.inputs):
        return Plan((3, 1, 2), 4), Plan((5, 2, 1, 4), 9)
    return dense(3, 4), dense(5, 9, apart=True)


def _table_keys(signature: Signature) -> dict[str, list[int]]:
    """The integers that tables have entries for, by the input that is looked up in them."""
    traced = signature.traced
    if traced is None:
        return {}
    inputs = [origin_of(tensor) for tensor in traced.inputs]
    names = [tensor.name for tensor in signature.contract.flat_inputs()]
    tables = {inner.name: outer for outer, inner in traced.graph.captures}
    keys: dict[str, set[int]] = {}
    for op in traced.graph.get_operations():
        if op.type != "LookupTableFindV2" or op.get_attr("Tin") != tf.int64:
            continue
        origin, table = origin_of(op.inputs[1]), tables.get(op.inputs[0].name)
        if table is not None and origin in inputs[: len(names)]:
            found, _ = tf.raw_ops.LookupTableExportV2(
                table_handle=table, Tkeys=tf.int64, Tvalues=op.get_attr("Tout")
            )
            name = names[inputs.index(origin)]
            keys.setdefault(name, set()).update(found.numpy().tolist())
    return {name: sorted(found) for name, found in keys.items()}
