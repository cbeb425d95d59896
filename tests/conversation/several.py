"""Cases held several at a time, and network namespaces in which they may do that with links and ports of the same names."""

import concurrent.futures
import os
import subprocess
import threading
import time

from broker import Tally


def hold(cases, jobs, alone=()):
    """cases: (name, body); a body that raises has failed, whatever it raises. `alone`: those that measure, which nobody may disturb;
    they come last. Returns the exit code of a runner."""
    tally = Tally()
    lock = threading.Lock()

    def one(case):
        name, body = case
        start = time.monotonic()
        reason = None
        try:
            body()
        except Exception as error:  # whatever goes wrong is the case's failure
            reason = str(error) if type(error) is AssertionError and str(error) else f"{type(error).__name__}: {error}"
        with lock:
            if reason:
                tally.fail(name, reason)
            else:
                tally.ok(name, f"{time.monotonic() - start:.1f} s")

    for some, at_once in ((cases, jobs), (alone, 1)):
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            list(pool.map(one, some))
    return tally.finish()


def in_namespace(command, timeout_s):
    """Runs it in a network namespace that goes away with it; as root, or in a user namespace. Raises what it said on a line
    "FAIL REASON", or the end of what it said at all."""
    command = ["unshare", "--net", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c",
               'ip link set lo up && exec "$0" "$@"', *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        _, failed, why = done.stdout.partition("FAIL ")
        raise AssertionError((why.rstrip() if failed else done.stdout[-800:]) + done.stderr[-4000:])
    return done.stdout
