"""`python -m tests.agent.dying PATH N`: delivers the output at PATH, and is killed (SIGKILL, by
itself) right before the n-th file that it opens or renames. Prints `done` where it came to the end.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from agent.staging import Output


def main() -> None:
    output, left = Output(Path(sys.argv[1])), int(sys.argv[2])

    def die(event: str, _arguments: object) -> None:
        nonlocal left
        if event in ("open", "os.rename"):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(die)
    output.deliver()
    print("done", flush=True)


if __name__ == "__main__":
    main()
