"""Runs `accelerate launch` in this process, and ends with the status of what it started.

    python -m nlijob.gpu.launcher ARGUMENTS    (those of `accelerate launch`)

By itself `accelerate launch` ends with status 1, whatever ended its child. As in a shell, a child
that signal N ended gives status 128 + N.
"""

from __future__ import annotations

import signal
import subprocess
import sys

from accelerate.commands import launch

from nlijob.stopping import STOP_SIGNALS


def main() -> None:
    """Run `accelerate launch`; raises SystemExit."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            # The child decides. It gets the signal's default, as handlers are not inherited.
            signal.signal(number, lambda *_: None)
    try:
        launch.main()
    except subprocess.CalledProcessError as error:
        status = error.returncode
        sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
