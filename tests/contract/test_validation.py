import numpy as np
import pytest

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.contract.example import example_inputs
from keras_blocks.contract.validation import InputChecks
from keras_blocks.errors import ContractError
from keras_blocks.serving.limits import Limits, check_declared_shape, check_limits

PAIR = Contract(
    (
        TensorSpec("a", "float32", ("batch", "time", 2)),
        TensorSpec("b", "float32", ("batch+1", "time"), minimum=0, maximum=1),
    ),
    (),
)
RAGGED = Contract((TensorSpec("x", "float32", ("x.values", 2), ragged=True),), ())


def pair(a=(2, 3, 2), b=(3, 3)):
    return {"a": np.zeros(a, "float32"), "b": np.zeros(b, "float32")}


def test_dims_of_one_name_may_have_any_size_as_long_as_it_is_the_same():
    for batch, time in ((1, 1), (5, 7), (0, 3), (4, 0)):
        InputChecks(PAIR).check(pair((batch, time, 2), (batch + 1, time)))


@pytest.mark.parametrize(
    ("b", "message"),
    [
        ((2, 3), r"input 'b': axis 0 \('batch\+1'\) is 2, .*'a' has batch = 2, so 3 expected"),
        ((3, 4), r"input 'b': axis 1 \('time'\) is 4, .*'a' has time = 3, so 3 expected"),
        ((0, 3), "at least 1 expected"),
        ((3,), r"shape \[3\] has 1 dims, \[batch\+1, time\] expected"),
    ],
)
def test_dims_of_one_name_that_disagree_are_refused(b, message):
    with pytest.raises(ContractError, match=message) as raised:
        InputChecks(PAIR).check(pair(b=b))
    assert raised.value.input_name == "b"


def test_an_axis_that_is_shorter_than_the_windows_is_refused():
    image = TensorSpec("x", "float32", ("batch", "rows", "columns"), least=(0, 5, 2))
    checks = InputChecks(Contract((image,), ()))
    for shape in ((1, 5, 2), (0, 7, 9)):
        checks.check({"x": np.zeros(shape, "float32")})
    with pytest.raises(ContractError, match=r"axis 1 \('rows'\) is 4, at least 5 expected"):
        checks.check({"x": np.zeros((1, 4, 2), "float32")})
    example = example_inputs(Contract((image,), ()))
    assert example["x"].shape == (1, 5, 3)
    checks.check(example)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, np.nan, np.inf, -np.inf])
def test_a_value_outside_its_bounds_is_refused_by_its_index(wrong):
    inputs = pair()
    inputs["b"][1, 2] = wrong
    with pytest.raises(ContractError, match=r"element 5 is .*expected 0 to 1"):
        InputChecks(PAIR).check(inputs)


def test_nan_is_let_through_where_the_contract_has_no_bounds():
    inputs = pair()
    inputs["a"][:] = np.nan
    InputChecks(PAIR).check(inputs)


def test_an_array_of_another_dtype_is_refused():
    with pytest.raises(ContractError, match="'a': dtype float32 expected, got float64"):
        InputChecks(PAIR).check({**pair(), "a": np.zeros((2, 3, 2))})


@pytest.mark.parametrize(
    "splits", [[0, 2, 4], [0, 0, 4, 4], [0, 4], [0] * 9 + [4]], ids=lambda s: str(len(s))
)
def test_row_splits_that_rise_from_0_to_the_length_are_accepted(splits):
    values = np.zeros((4, 2), "float32")
    InputChecks(RAGGED).check({"x": values, "x.row_splits": np.array(splits)})


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ([1, 4], "start at 0, got 1"),
        ([-1, 4], "start at 0, got -1"),
        ([0, 3, 2, 4], "element 1 is 3 and element 2 is 2"),
        ([0, 5], "length of 'x', which is 4, got 5"),
        ([0], "length of 'x', which is 4, got 0"),
        ([], "at least 1 expected"),
        ([0, 2**62, -(2**62), 4], "never fall"),
    ],
)
def test_other_row_splits_are_refused(splits, message):
    inputs = {"x": np.zeros((4, 2), "float32"), "x.row_splits": np.array(splits, "int64")}
    with pytest.raises(ContractError, match=message) as raised:
        InputChecks(RAGGED).check(inputs)
    assert raised.value.input_name == "x.row_splits"


def test_rows_whose_padding_would_exceed_the_limit_are_refused():
    splits = np.array([0, 100, *range(101, 150)])
    inputs = {"x": np.zeros((149, 2), "float32"), "x.row_splits": splits}
    check_limits(RAGGED, inputs, Limits(padded_steps=50 * 100))
    with pytest.raises(ContractError, match="50 rows with a longest row of 100 steps"):
        check_limits(RAGGED, inputs, Limits(padded_steps=50 * 100 - 1))


def test_only_tensors_without_elements_are_held_to_the_limit_of_their_other_dims():
    limits = Limits(empty_elements=100)
    check_declared_shape("x", [0, 10, 10], limits)
    check_declared_shape("x", [1000, 1000], limits)
    with pytest.raises(ContractError, match=r"'x': shape .* multiply to 101"):
        check_declared_shape("x", [101, 0], limits)


def test_steps_of_a_recurrent_model_are_limited_and_rows_of_others_are_not():
    contract = Contract((TensorSpec("x", "float32", ("batch", "time", 2)),), ())
    inputs = {"x": np.zeros((5, 20, 2), "float32")}
    check_limits(contract, inputs, Limits(padded_steps=99))
    check_limits(contract, inputs, Limits(padded_steps=100), recurrent=True)
    with pytest.raises(ContractError, match=r"input 'x': 100 steps in all, at most 99"):
        check_limits(contract, inputs, Limits(padded_steps=99), recurrent=True)
