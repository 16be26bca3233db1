"""Train a model from a recipe. The same as ``maskdet train``."""

import sys

from maskdet.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
