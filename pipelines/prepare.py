"""Make a training manifest from labelled images. The same as ``maskdet prepare``."""

import sys

from maskdet.cli.prepare import main

if __name__ == "__main__":
    sys.exit(main())
