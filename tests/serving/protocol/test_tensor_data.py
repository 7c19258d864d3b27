import numpy as np
import pytest

from keras_blocks.contract import FlatTensor
from keras_blocks.serving.limits import Limits
from keras_blocks.serving.protocol.tensor_data import read_tensor, to_bytes, to_json

FLOATS = FlatTensor("x", "float32", ("batch", 3))


def test_raw_bytes_become_a_view_where_they_lie_so_that_they_can_and_a_copy_elsewhere():
    buffer = np.arange(7, dtype="float32").tobytes()
    view = read_tensor(FLOATS, "FP32", [2, 3], memoryview(buffer)[4:], Limits())
    assert np.shares_memory(view, np.frombuffer(buffer, dtype="uint8"))
    shifted = memoryview(b"\0" + buffer)[5:]
    copy = read_tensor(FLOATS, "FP32", [2, 3], shifted, Limits())
    assert copy.flags.aligned
    assert view.tolist() == copy.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), ()])
def test_arrays_without_elements_or_dims_have_bytes_and_json_too(shape):
    array = np.ones(shape, dtype="float32")
    assert b"".join([to_bytes(array)]) == array.tobytes()
    assert list(to_json(array, "float32")) == [1.0] * array.size


def test_a_part_of_an_array_is_written_as_if_it_were_whole():
    array = np.arange(12, dtype="int32").reshape(3, 4)[:, 1:3]
    assert b"".join([to_bytes(array)]) == np.ascontiguousarray(array).tobytes()
    assert to_json(array, "int32").tolist() == [1, 2, 5, 6, 9, 10]
