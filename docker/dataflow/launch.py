"""What the Flex Template's launcher runs: ``maskdet score`` with Dataflow's options as in configs/runners.

Not maskdet/cli/score.py itself: run as a file, it would put its folder on the path, whose inspect.py is not Python's.
"""

import sys
from pathlib import Path

from maskdet.cli.score import main

RUNNER_CONFIG = Path(__file__).parent / "configs" / "runners" / "dataflow.yaml"

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if not any(argument.startswith("--runner-config") for argument in arguments):
        arguments += ["--runner-config", str(RUNNER_CONFIG)]
    sys.exit(main(arguments))
