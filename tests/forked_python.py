"""Stands in for the interpreter of scripts that start one: a child of the fork server runs for it.

    PYTHON [-u] FILE|-m MODULE [arguments]

``fork_server.interpreter`` writes the program that runs this, which imports next to nothing. Its
folder, environment, files and arguments are the child's, which has a session of its own. It passes
signals on to all of that, and ends as the child does.
"""

import json
import os
import signal
import socket
import sys


def main(address: str) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.connect(address)
    socket.send_fds(server, [b"+"], [0, 1, 2])
    argv = sys.argv[2:] if sys.argv[1] == "-u" else sys.argv[1:]  # children write at once
    request = {"argv": argv, "cwd": os.getcwd(), "env": dict(os.environ), "session": True}
    server.sendall(json.dumps(request).encode() + b"\n")
    replies = server.makefile("r")
    child = int(replies.readline())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os.killpg(child, number))
    code = int(replies.readline())
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
