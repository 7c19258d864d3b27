import math

import numpy as np
import pytest

from keras_blocks.contract import FlatTensor
from keras_blocks.contract.dtypes import PROTOCOL
from keras_blocks.contract.values import cast, flatten, from_items, to_array
from keras_blocks.errors import ContractError

FLOATS = ["float16", "float32", "float64"]
INTEGERS = [name for name in PROTOCOL if "int" in name]


def of(dtype, *shape):
    return FlatTensor("x", dtype, shape)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_keep_both_ends_of_their_range_and_nothing_beyond(dtype):
    info = np.iinfo(dtype)
    array = from_items([int(info.min), int(info.max)], of(dtype))
    assert array.dtype == dtype
    assert array.tolist() == [info.min, info.max]
    for beyond in (int(info.min) - 1, int(info.max) + 1):
        with pytest.raises(ContractError, match=f"element 1 is {beyond}, outside"):
            from_items([1, beyond], of(dtype))


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_take_integers_and_refuse_what_would_become_infinite(dtype):
    largest = float(np.finfo(dtype).max)
    assert from_items([1, -2.5, largest], of(dtype)).tolist() == [1, -2.5, largest]
    with pytest.raises(ContractError, match="element 1 is"):
        from_items([1, 10**400], of(dtype))
    if dtype != "float64":
        with pytest.raises(ContractError, match="element 2 is"):
            from_items([1, 2, largest * 2], of(dtype))


def test_infinities_and_nan_that_were_given_are_kept():
    array = from_items([math.inf, -math.inf, math.nan], of("float32"))
    assert np.array_equal(array, np.float32([np.inf, -np.inf, np.nan]), equal_nan=True)


@pytest.mark.parametrize(
    ("dtype", "item"),
    [
        ("float32", True),
        ("float32", "1"),
        ("float32", None),
        ("int32", 1.0),
        ("int32", True),
        ("int32", "1"),
        ("bool", 0),
        ("bool", "true"),
        ("string", 1),
        ("string", None),
        ("string", b"bytes"),
        ("int64", [1]),
        ("int64", {"a": 1}),
    ],
)
def test_an_item_of_another_kind_is_refused_by_its_index(dtype, item):
    good = {"bool": True, "string": "a"}.get(dtype, 1)
    with pytest.raises(ContractError, match=rf"input 'x': {PROTOCOL[dtype]} expected.*element 2"):
        from_items([good, good, item], of(dtype))


def test_text_is_kept_with_its_nul_bytes_and_accents():
    text = ["", "a\0b", "é\0", "日本"]
    assert from_items(text, of("string")).tolist() == text


def test_flatten_takes_the_row_major_order():
    nested = [[[1, 2], [3, 4], [5, 6]]]
    assert flatten(nested, (1, 3, 2), "x") == [1, 2, 3, 4, 5, 6]
    assert flatten([1, 2, 3, 4, 5, 6], (1, 3, 2), "x") == [1, 2, 3, 4, 5, 6]


def test_flatten_compares_before_it_allocates():
    with pytest.raises(ContractError, match="64000000000 elements, but data has 1"):
        flatten([1], (1_000_000_000, 64), "x")


@pytest.mark.parametrize("data", [[[1, 2], [3]], [[1, 2], 3], [[1, 2, 3], [4, 5, 6]], [[1, 2]]])
def test_flatten_refuses_a_nesting_that_is_not_the_shape(data):
    with pytest.raises(ContractError, match="input 'x'"):
        flatten(data, (2, 2), "x")


def test_flatten_refuses_more_dims_than_numpy_can_hold():
    with pytest.raises(ContractError, match=r"input 'x': 65 dims"):
        flatten([], (0,) * 65, "x")
    deep: list = []
    for _ in range(500):
        deep = [deep]
    with pytest.raises(ContractError, match=r"input 'x': 501 dims"):
        to_array(deep, FlatTensor("x", "float32", ("...",)))


def test_arrays_are_cast_where_no_value_changes():
    assert cast(np.array([1, 2]), of("int32")).dtype == "int32"
    assert cast(np.array([1, 2], "uint8"), of("float32")).dtype == "float32"
    assert cast(np.array([0.1]), of("float32"))[0] == np.float32(0.1)
    assert cast(np.array(["a", "b"]), of("string")).tolist() == ["a", "b"]
    assert cast(np.array([b"a", "é".encode()]), of("string")).tolist() == ["a", "é"]


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([1.0]), "int32"),
        (np.array([True]), "int32"),
        (np.array([True]), "float32"),
        (np.array([1]), "bool"),
        (np.array([2**31]), "int32"),
        (np.array([-1]), "uint64"),
        (np.array([2**64 - 1], "uint64"), "int64"),
        (np.array([1e39]), "float32"),
        (np.array([1e5], "float32"), "float16"),
        (np.array(["1"]), "float32"),
        (np.array([1]), "string"),
        (np.array([1, "a"], dtype=object), "string"),
        (np.array([b"\xff"]), "string"),
        (np.array([1j]), "float32"),
        (np.array([0], "datetime64[s]"), "int64"),
    ],
    ids=lambda value: str(getattr(value, "dtype", value)),
)
def test_arrays_whose_values_would_change_are_refused(array, dtype):
    with pytest.raises(ContractError, match="input 'x'"):
        cast(array, of(dtype))


def test_lists_of_numpy_numbers_count_as_numbers():
    assert to_array([np.int64(3), np.int32(4)], of("int32", "n")).tolist() == [3, 4]
    assert to_array(list(np.float32([0.5, 1])), of("float32", "n")).tolist() == [0.5, 1]
    with pytest.raises(ContractError, match="element 0"):
        to_array([np.float64(3.0)], of("int32", "n"))


def test_an_empty_list_has_no_rows_of_the_right_width():
    assert to_array([], of("float32", "batch", 64)).shape == (0, 64)
    assert to_array([[], []], of("float32", "batch", "time", 3)).shape == (2, 0, 3)


def test_rows_of_unequal_length_are_no_array():
    for rows in ([[1, 2], [3]], [np.ones(2), np.ones(3)], (np.ones(2), np.ones(3))):
        with pytest.raises(ContractError, match="input 'x'"):
            to_array(rows, of("float32", "batch", "time"))
