"""What is told of an error is its reason, not what frameworks put before it."""

from keras_blocks.runtime.runner import first_line


def test_the_reason_stands_behind_what_keras_and_tensorflow_say_first():
    text = (
        "Exception encountered when calling Functional.call().\n\nGraph execution error:\n\n"
        "Detected at node model/Assert defined at (most recent call last):\n"
        "<stack traces unavailable>\nassertion failed: [node 0 has parent 5]\n\t [[{{node a}}]]"
    )
    assert first_line(ValueError(text)) == "assertion failed: [node 0 has parent 5]"
    assert first_line(ValueError("Graph execution error:")) == "Graph execution error:"
