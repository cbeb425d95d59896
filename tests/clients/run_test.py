"""The driver must notice suites that lie, crash, hang or forget tests, and stop what they leave behind."""

import contextlib
import io
import json
import os
import pathlib
import sys
import tempfile
import textwrap
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import run

# A stand-in for a broker: greets, writes its ports file, and can be stopped.
BROKER = """
    #!/usr/bin/env python3
    import json, os, pathlib, socket, sys
    args = sys.argv[1:]
    port = int(args[args.index("-p") + 1])
    folder = pathlib.Path(args[args.index("--ports_file_dir") + 1])
    if "--refuse" in args:
        sys.exit("refused by name")
    listener = socket.create_server(("127.0.0.1", port))
    (folder / "x.tmp").write_text(json.dumps({"nats": [f"nats://127.0.0.1:{port}"], "monitoring": ["http://127.0.0.1:1"]}))
    (folder / "x.tmp").rename(folder / f"fake_{os.getpid()}.ports")
    while True:
        client, _ = listener.accept()
        client.sendall(b'INFO {} \\r\\n')
        client.close()
"""

CALL = """
    import json, os, sys, time, urllib.error, urllib.request
    def call(path, **body):
        request = urllib.request.Request(os.environ["CLIENTS_CONTROL"] + path, json.dumps(body).encode(), method="POST")
        try:
            return json.load(urllib.request.urlopen(request))
        except urllib.error.HTTPError as error:
            return json.load(error)
"""


class DriverTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        for name, value in (("HERE", self.folder), ("SUITES", ["fake"])):
            self.addCleanup(setattr, run, name, getattr(run, name))
            setattr(run, name, value)
        self.broker = self.folder / "broker"
        self.broker.write_text(textwrap.dedent(BROKER).lstrip())
        self.broker.chmod(0o755)

    def drive(self, program, *args, **spec):
        suite = self.folder / "fake"
        suite.mkdir(exist_ok=True)
        (suite / "program.py").write_text(textwrap.dedent(CALL) + textwrap.dedent(program))
        (suite / "suite.json").write_text(json.dumps({"run": ["python3", "-B", "{suite}/program.py"], **spec}))
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            code = run.main(["--server", str(self.broker), "--cache", str(self.folder / "cache"), *args])
        return code, output.getvalue()

    def all_ok(self, more=""):
        return f"print('plan {len(run.REQUIRED)}')\nfor name in {run.REQUIRED!r}:\n    print('ok', name)\n{more}"

    def test_everything_passes(self):
        code, output = self.drive(self.all_ok())
        self.assertEqual((code, output.splitlines()[-1]), (0, f"{len(run.REQUIRED)} passed, 0 failed"))

    def test_reported_failure(self):
        code, output = self.drive(self.all_ok().replace("print('ok', name)",
                                                        "print('ok ' + name if name != 'drain' else 'FAIL drain: because')"))
        self.assertEqual(code, 1)
        self.assertIn("fake: FAIL drain: because", output)

    def test_silence_is_failure(self):
        code, output = self.drive("")
        self.assertEqual((code, output.splitlines()[-1]), (1, f"0 passed, {len(run.REQUIRED) + 1} failed"))

    def test_forgotten_test(self):
        required, run.REQUIRED = run.REQUIRED, run.REQUIRED + ["one_more"]
        try:
            code, output = self.drive(f"print('plan {len(required)}')\nfor name in {required!r}:\n    print('ok', name)")
            self.assertEqual(code, 1)
            self.assertIn("FAIL one_more: not reported", output)
            code, output = self.drive(f"print('plan {len(required)}')\nfor name in {required!r}:\n    print('ok', name)",
                                      not_exposed={"one_more": "no such thing"})
            self.assertEqual(code, 0)
        finally:
            run.REQUIRED = required

    def test_fewer_than_planned(self):
        code, output = self.drive(self.all_ok().replace(f"plan {len(run.REQUIRED)}", f"plan {len(run.REQUIRED) + 1}"))
        self.assertEqual(code, 1)
        self.assertIn("FAIL suite_plans", output)

    def test_crash_after_success(self):
        code, output = self.drive(self.all_ok("sys.exit(3)"))
        self.assertEqual(code, 1)
        self.assertIn("FAIL suite_ends: exit code 3", output)

    def test_hang_is_ended(self):
        started = time.monotonic()
        code, output = self.drive(self.all_ok("sys.stdout.flush(); time.sleep(60)"), timeout_s=1)
        self.assertEqual(code, 1)
        self.assertIn("FAIL suite_ends: killed after 1 s", output)
        self.assertLess(time.monotonic() - started, 30)

    def test_orphan_is_ended(self):
        code, _ = self.drive(self.all_ok("""
import subprocess
orphan = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
open(os.path.join(os.environ["CLIENTS_CACHE"], "orphan"), "w").write(str(orphan.pid))
"""))
        self.assertEqual(code, 0)
        stat = pathlib.Path("/proc", (self.folder / "cache" / "fake" / "orphan").read_text(), "stat")
        deadline = time.monotonic() + 10
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            while stat.read_text().split()[2] != "Z":
                self.assertLess(time.monotonic(), deadline, "a child of the suite still runs")
                time.sleep(0.01)

    def test_told_twice(self):
        code, output = self.drive(self.all_ok("print('ok drain')"))
        self.assertEqual(code, 1)
        self.assertIn("FAIL drain: reported twice", output)

    def test_prepare_fails(self):
        code, output = self.drive(self.all_ok(), prepare=[["false"]])
        self.assertEqual((code, output.splitlines()[-1]), (1, "0 passed, 1 failed"))

    def test_prepare_only_when_changed(self):
        prepare = [["sh", "-c", "echo x >> {cache}/count"]]
        for _ in range(2):
            self.assertEqual(self.drive(self.all_ok(), prepare=prepare)[0], 0)
        self.assertEqual((self.folder / "cache" / "fake" / "count").read_text(), "x\n")
        self.drive(self.all_ok("# changed"), prepare=prepare)
        self.assertEqual((self.folder / "cache" / "fake" / "count").read_text(), "x\nx\n")

    def test_brokers(self):
        code, output = self.drive(self.all_ok("""
first = call("/start", args=["--flag"], config="x: y")
again = call("/restart", id=first["id"], down_ms=0)
assert (first["port"], first["id"]) == (again["port"], again["id"]) and first["pid"] != again["pid"], (first, again)
assert call("/stop", id=first["id"], signal="KILL") == {"exit_code": -9}
assert "refused by name" in call("/start", args=["--refuse"])["error"]
left = call("/start")
open(os.path.join(os.environ["CLIENTS_CACHE"], "left"), "w").write(str(left["pid"]))
"""))
        self.assertEqual(code, 0, output)
        pid = int((self.folder / "cache" / "fake" / "left").read_text())
        with self.assertRaises(ProcessLookupError):
            os.kill(pid, 0)

    def test_differences_are_told(self):
        program = self.all_ok().replace("print('ok', name)", "print('FAIL drain: no' if name == 'drain' and "
                                        "os.environ['CLIENTS_SERVER'].endswith('other') else 'ok ' + name)")
        other = self.folder / "other"
        other.symlink_to(self.broker)
        code, output = self.drive(program, "--against", str(other))
        self.assertEqual(code, 1)
        self.assertIn(f"differs: fake drain: passes only on {self.broker}", output)


if __name__ == "__main__":
    unittest.main()
