"""`python -m keras_blocks.cli` is `keras-blocks`."""

from keras_blocks.cli.main import main

if __name__ == "__main__":
    main()
