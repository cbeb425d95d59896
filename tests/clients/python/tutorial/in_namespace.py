"""Run the tutorial's two programs, unchanged, against a broker on port 4222 of a network namespace of our own.

Run under `unshare`: the namespace is empty, so that the fixed port collides with nobody, and loopback has to be raised first.
Arguments: the broker and its further arguments. Prints "tutorial ok" or says on stderr what went wrong.
"""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
WAIT_S = 30


def wait_for(what, condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"no {what} within {WAIT_S} s")
        time.sleep(0.05)


def listening():
    try:
        with socket.create_connection(("127.0.0.1", 4222), timeout=1):
            return True
    except OSError:
        return False


def main():
    if listening():
        raise SystemExit("port 4222 is taken")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        programs = []

        def start(name, command):
            with open(folder / name, "wb") as output:
                programs.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT,
                                                 env={**os.environ, "PYTHONUNBUFFERED": "1"}))

        def said(name):
            return (folder / name).read_text(errors="replace")

        try:
            # No port among the arguments: 4222 is what a user gets by typing the program's name.
            start("broker", sys.argv[1:])
            wait_for("broker on port 4222", lambda: programs[0].poll() is not None or listening())
            if programs[0].poll() is not None:
                raise SystemExit(f"broker ended: {said('broker')[-1000:]}")
            start("subscriber", [sys.executable, "-B", str(HERE / "subscriber.py")])
            wait_for("subscriber", lambda: "Waiting for messages..." in said("subscriber"))
            # The program does not wait until its subscription has arrived; a person typing the next command does.
            time.sleep(0.5)
            start("publisher", [sys.executable, "-B", str(HERE / "publisher.py")])
            wait_for("third message", lambda: "Received: Hello World 2" in said("subscriber"))
        finally:
            for program in reversed(programs):
                program.kill()
                program.wait()
        got = [line for line in said("subscriber").splitlines() if line.startswith("Received: ")]
        if got != [f"Received: Hello World {n}" for n in range(len(got))]:
            raise SystemExit(f"wrong messages: {got}")
    print("tutorial ok")


if __name__ == "__main__":
    main()
