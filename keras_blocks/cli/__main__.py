"""`python -m keras_blocks.cli` is `keras-blocks`."""

from keras_blocks.cli.main import main

main()
