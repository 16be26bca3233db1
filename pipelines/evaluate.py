"""Measure a model on labelled images. The same as ``maskdet evaluate``."""

import sys

from maskdet.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
