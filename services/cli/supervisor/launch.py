"""Become another program that does not outlive the supervisor: `launch.py PARENT_PID PROGRAM ARGUMENTS…`.

Run as a file in an isolated interpreter, so that starting it costs milliseconds. It replaces itself by the program: the
pid that the supervisor knows is the program's own.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Ask the kernel for SIGKILL at the parent's death, then turn into the program."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":  # elsewhere the next start waits for what is left and names it
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it died before the request: no signal will come
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606  # our own programs, named by the supervisor


if __name__ == "__main__":
    main()
