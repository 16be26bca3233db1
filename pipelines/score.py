"""Score images. The same as ``maskdet score``."""

import sys

from maskdet.cli.score import main

if __name__ == "__main__":
    sys.exit(main())
