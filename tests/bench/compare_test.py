"""The arithmetic of scripts/bench: medians, verdicts, warnings, what takes part, what is left, and reports of what is there."""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from bench.compare import __main__ as main
from bench.compare import contenders, goals, measure, model, plots, scenarios, table
from bench.compare.metrics import ALL_CORES, FLOOR, LATENCY, ONE_CORE, SMALL, ratio_text
from bench.compare.servers import Contender, parse_server

SCENARIOS = {s.name: s for s in scenarios.SCENARIOS}
OURS = Contender("peregrine uring", ["-"], ours=True, setup=ALL_CORES)
REFERENCE = Contender("nats-server", ["-"], reference=True, setup=ALL_CORES)
RELAY = Contender("floor", ["-"], relay=True, setup="")
OURS_1 = Contender("peregrine uring @1", ["-"], ours=True, setup=ONE_CORE)
SPIN_1 = Contender("peregrine uring spin @1", ["-"], ours=True, setup=ONE_CORE, rows=contenders.LATENCY_ROWS)
REFERENCE_1 = Contender("nats-server @1", ["-"], reference=True, setup=ONE_CORE)
WHO = [OURS, REFERENCE, RELAY, OURS_1, SPIN_1, REFERENCE_1]


def result(cpu=None, p50=None, **window):
    """A run as bench/load tells of it."""
    out = {"ok": True, "kind": "stream", "window": {"generator_cpu_share": 0.5, "server_cpu_share": 0.9, **window}}
    if cpu is not None:
        out["window"] |= {"cpu_ns_per_message": cpu, "cpu_ns_per_round_trip": cpu}
    if p50 is not None:
        percentiles = {"p50": p50, "p90": 2 * p50, "p99": 3 * p50, "p99_9": 4 * p50, "max": 5 * p50}
        out["latency"] = {**percentiles, "curve": [[0, p50 / 2], [50, p50], [99, 3 * p50]]}
    return out


def row(name, **cells):
    """cells: by "ours", "reference", … the CPU figures of the runs."""
    names = {"ours": OURS, "reference": REFERENCE, "floor": RELAY, "ours_1": OURS_1, "spin_1": SPIN_1, "reference_1": REFERENCE_1}
    return measure.Row(
        SCENARIOS[name],
        {names[k].name: measure.Cell([r if isinstance(r, dict) else result(r) for r in runs]) for k, runs in cells.items()},
    )


def verdict(rows, metric="CPU per message", contender=OURS):
    return next(v for v in goals.judge(rows, WHO) if v.metric == metric and v.contender == contender.name)


class Medians(unittest.TestCase):
    METRIC = SCENARIOS["1to1-16"].metrics[0]

    def test_is_a_value_that_was_measured(self):
        cell = measure.Cell([result(30.0), result(10.0), result(20.0), result(40.0)])
        self.assertEqual(cell.median(self.METRIC), 20.0)
        self.assertEqual(cell.middle_result(self.METRIC)["window"]["cpu_ns_per_message"], 20.0)

    def test_of_nothing_is_nothing(self):
        self.assertIsNone(measure.Cell().median(self.METRIC))
        self.assertIsNone(measure.Cell([{"ok": True, "window": {}}]).median(self.METRIC))
        self.assertIsNone(measure.Cell().middle_result(self.METRIC))

    def test_spread_is_a_share_of_the_median(self):
        self.assertAlmostEqual(measure.Cell([result(10.0), result(20.0), result(16.0)]).spread(self.METRIC), 10 / 16)
        self.assertEqual(measure.Cell([result(10.0)]).spread(self.METRIC), 0.0)

    def test_percentages(self):
        idle = SCENARIOS["idle"].metrics[0]
        self.assertAlmostEqual(idle.value({"window": {"server_cpu_share": 0.004}}), 0.4)


class Verdicts(unittest.TestCase):
    def test_met_and_missed(self):
        met = verdict([row("1to1-16", ours=[10.0], reference=[80.0], floor=[5.0])])
        self.assertEqual((met.ratio, met.passed, met.over_floor, met.floor_passed), (8.0, True, 2.0, True))
        missed = verdict([row("1to1-16", ours=[10.1], reference=[80.0], floor=[4.0])])
        self.assertEqual((missed.passed, missed.floor_passed), (False, False))

    def test_one_core_is_judged_by_its_own_goal_and_reference(self):
        rows = [row("1to1-16", ours=[10.0], reference=[70.0], ours_1=[10.0], reference_1=[60.0], floor=[5.0])]
        self.assertFalse(verdict(rows).passed)
        alone = verdict(rows, contender=OURS_1)
        self.assertEqual((alone.ratio, alone.goal, alone.passed, alone.over_floor), (6.0, "≥ 6×", True, 2.0))

    def test_without_a_reference_there_is_no_verdict(self):
        v = verdict([row("1to1-16", ours=[10.0])])
        self.assertEqual((v.ratio, v.passed, v.floor_passed), (None, None, None))

    def test_absolute_goals_need_no_reference(self):
        memory = {"ok": True, "window": {}, "memory": {"resident_each": 1025.0}}
        v = verdict([row("connections-10k", ours=[memory])], "memory each")
        self.assertEqual((v.passed, v.goal), (False, "≤ 1024 B"))

    def test_the_summary_says_where_the_floor_misses_too(self):
        rows = [
            row("1to1-16", ours=[10.0], reference=[70.0], floor=[9.0]),
            row("1to1-128", ours=[10.0], reference=[70.0], floor=[5.0]),
        ]
        lines = {line.group: line for line in goals.summary(goals.judge(rows, WHO))}
        small = lines[SMALL]
        self.assertEqual((small.met, small.total, small.beyond), (0, 2, 1))
        self.assertEqual(small.missed, ["1→1, 16 B 7.0× (≥ 8×, the floor itself 7.8×)", "1→1, 128 B 7.0× (≥ 8×)"])
        self.assertEqual((lines[FLOOR].met, lines[FLOOR].total), (2, 2))

    def test_a_ratio_that_rounds_to_its_goal_shows_why_it_missed(self):
        rows = [row("1to1-16", ours=[10.0], reference=[79.9])]
        self.assertEqual(goals.summary(goals.judge(rows, WHO))[0].missed, ["1→1, 16 B 7.99× (≥ 8×)"])

    def test_who_never_sleeps_stands_beside_and_is_not_judged(self):
        runs = {"ours_1": [result(1.0, 50.0)], "spin_1": [result(1.0, 15.0)], "reference_1": [result(1.0, 60.0)]}
        rows = [row("latency-10k", **runs)]
        spin = verdict(rows, "latency p50", SPIN_1)
        self.assertEqual((spin.ratio, spin.goal, spin.passed, spin.first), (4.0, "", None, False))
        ours = verdict(rows, "latency p50", OURS_1)
        self.assertEqual((ours.passed, ours.first), (False, True))
        self.assertEqual([(line.group, line.contender) for line in goals.summary(goals.judge(rows, WHO))], [(LATENCY, OURS_1.name)])

    def test_latency_on_one_core_is_not_held_against_a_floor_that_sleeps(self):
        runs = {"ours_1": [result(1.0, 50.0)], "reference_1": [result(1.0, 60.0)], "floor": [result(1.0, 55.0)]}
        self.assertIsNone(verdict([row("latency-10k", **runs)], "latency p50", OURS_1).floor)
        own = Contender("floor @1", ["-"], relay=True, setup=ONE_CORE, rows=contenders.LATENCY_ROWS)
        rows = [row("latency-10k", **runs)]
        rows[0].cells[own.name] = measure.Cell([result(1.0, 25.0)])
        v = next(v for v in goals.judge(rows, [*WHO, own]) if v.metric == "latency p50" and v.contender == OURS_1.name)
        self.assertEqual(v.over_floor, 2.0)


class Warnings(unittest.TestCase):
    def test_a_quiet_machine_gives_none(self):
        rows = [row("1to1-16", ours=[10.0, 11.0], reference=[80.0, 81.0])]
        self.assertEqual(measure.warnings_of(rows, 0.0), [])

    def warn(self, rows, text, load=0.0):
        found = [w for w in measure.warnings_of(rows, load) if text in w]
        self.assertEqual(len(found), 1, measure.warnings_of(rows, load))
        return found[0]

    def test_other_work(self):
        self.assertIn("30%", self.warn([], "busy with other work", 0.3))
        self.warn([row("1to1-16", ours=[result(10.0, others_cpu_share=0.7)])], "other processes used 0.7 cores")

    def test_runs_that_differ(self):
        self.assertIn("1to1-16 (peregrine uring 50%)", self.warn([row("1to1-16", ours=[10.0, 15.0, 10.0])], "runs differ"))

    def test_stolen_time_and_a_changing_pace(self):
        stolen = [{**result(10.0), "machine": {"steal_share": 0.1, "busy_share": 1.0}, "pace_ns": 3e6}]
        self.assertIn("10.0%", self.warn([row("1to1-16", ours=stolen)], "stolen"))
        slower = [{**result(10.0), "pace_ns": 5e6}]
        self.warn([row("1to1-16", ours=stolen, reference=slower)], "neighbours")

    def test_cells_that_were_stolen_are_named(self):
        quiet = result(10.0)
        robbed = result(300.0, steal_share=1.04)
        text = self.warn([row("1to1-16", ours=[robbed], reference=[quiet])], "took cores away")
        self.assertIn("1to1-16 (peregrine uring 43%)", text)
        self.assertNotIn("nats-server", text)
        # Neither one in three, which is not what stands there, nor a few ticks.
        self.assertEqual(measure.warnings_of([row("1to1-16", reference=[result(10.0, steal_share=0.12)])], 0.0), [])
        rows = [row("1to1-16", ours=[quiet, result(11.0, steal_share=1.0), quiet])]
        self.assertEqual(measure.warnings_of(rows, 0.0), [])

    def test_what_is_stolen_is_a_share_of_what_was_wanted(self):
        self.assertEqual(measure.stolen_share(result(steal_share=0.6, others_cpu_share=0.4)), 0.6 / 2.4)
        self.assertEqual(measure.stolen_share({"ok": False}), 0.0)
        idle = result(steal_share=0.04, server_cpu_share=0.0, generator_cpu_share=0.01)
        self.assertEqual(measure.stolen_share(idle), 0.0)

    def test_a_generator_that_is_the_bottleneck(self):
        busy = result(10.0, generator_cpu_share=0.99, server_cpu_share=0.4)
        self.assertIn("(peregrine uring 40%)", self.warn([row("1to1-16", ours=[busy])], "the generator was the bottleneck"))
        both = result(10.0, generator_cpu_share=0.99, server_cpu_share=0.99)
        self.assertEqual(measure.warnings_of([row("1to1-16", ours=[both])], 0.0), [])

    def test_a_generator_that_lags_behind_its_timetable(self):
        late = result(10.0, 100.0) | {"lateness": {"p50": 40.0}}
        self.assertIn("latency-10k (peregrine uring 40%)", self.warn([row("latency-10k", ours=[late])], "left late"))
        punctual = result(10.0, 100.0) | {"lateness": {"p50": 0.2}}
        self.assertEqual(measure.warnings_of([row("latency-10k", ours=[punctual])], 0.0), [])


def arguments(*given):
    with mock.patch.object(sys, "argv", ["scripts/bench", *given]):
        a = main.arguments()
    a.nats_server, a.peregrine, a.relay = sys.executable, sys.executable, sys.executable
    return a


class TakingPart(unittest.TestCase):
    def who(self, *given):
        two = mock.patch("bench.compare.machine.cores", return_value=[0, 1])
        with two:
            return contenders.contenders_of(arguments(*given), ["uring", "epoll"])

    def names(self, scenario, *given):
        return [c.name for c in self.who(*given) if measure.takes_part(c, SCENARIOS[scenario])]

    def test_the_short_run(self):
        plain = ["peregrine uring", "peregrine epoll", "nats-server", "floor", "peregrine uring @1", "nats-server @1"]
        self.assertEqual(self.names("1to1-16"), plain)
        self.assertEqual(self.names("latency-10k"), [*plain, "peregrine uring spin @1", "floor @1"])
        self.assertEqual(self.names("churn"), [n for n in plain if n != "floor"])
        self.assertEqual(self.names("size-64"), plain[:4])

    def test_everything(self):
        full = self.names("latency-10k", "--full")
        self.assertEqual(len(set(full)), len(full))
        self.assertEqual(full[-3:], ["nats-server @1", "floor @1", "peregrine uring spin @1"])

    def test_pinning_of_one_core(self):
        for c in self.who("--one-core"):
            self.assertEqual((c.cores, c.load_cores), ([0], [1]), c.name)
        spin = next(c for c in self.who("--one-core") if c.rows)
        self.assertEqual(spin.command[1:], ["--backend", "uring", "--shards", "1", "--idle", "spin"])

    def test_where_there_is_one_core_nobody_spins(self):
        with mock.patch("bench.compare.machine.cores", return_value=[0]):
            who = contenders.contenders_of(arguments(), ["uring"])
        self.assertEqual([c.name for c in who if c.rows], [])

    def test_a_server_elsewhere(self):
        far = next(c for c in self.who("--server", "far=nats://10.0.0.2:4222") if c.remote)
        self.assertEqual((far.name, far.url), ("far", "nats://10.0.0.2:4222"))
        self.assertTrue(measure.takes_part(far, SCENARIOS["1to1-16"]))
        for name in ("cluster-16", "shards-fan-2", "size-8388608"):
            self.assertFalse(measure.takes_part(far, SCENARIOS[name]), name)
        self.assertEqual(parse_server("/usr/bin/nats-server -D").name, "nats-server")
        self.assertEqual(parse_server("old=/usr/bin/nats-server -D").command, ["/usr/bin/nats-server", "-D"])

    def test_numbers_of_connections_and_sizes(self):
        fan = SCENARIOS["fan-100"].load_args(64, 7, False)
        self.assertEqual(fan, ["stream", "--subscribers", "7", "--size", "64"])
        self.assertEqual(SCENARIOS["pairs-16"].load_args(64, 3, False).count("3"), 3)
        self.assertEqual(SCENARIOS["1to1-128"].load_args(64, 9, False), ["stream", "--size", "128"])
        self.assertIn("--spin", SCENARIOS["latency-10k"].load_args(None, None, True))


class Running(unittest.TestCase):
    SETUP = measure.Setup(pathlib.Path("load"), 1.0, 0.5, 2, None, None, 10.0)

    def run_all(self, answer):
        done = []
        with mock.patch("bench.compare.measure.run_once", side_effect=answer), mock.patch("sys.stderr"):
            rows, stopped = measure.run_all(
                self.SETUP, [SCENARIOS["1to1-16"], SCENARIOS["churn"]], [OURS, REFERENCE], lambda rows: done.append(len(rows))
            )
        return rows, stopped, done

    def test_whatever_fails_does_not_end_the_others(self):
        def answer(_, scenario, contender):
            if scenario.name == "churn":
                return result(5.0)
            if contender is OURS:
                raise ConnectionResetError("gone")
            return {"ok": False, "error": "out of order"}

        rows, stopped, done = self.run_all(answer)
        self.assertEqual((stopped, done), (False, [1, 2]))
        self.assertEqual(rows[0].cells[OURS.name].errors, ["ConnectionResetError: gone"] * 2)
        self.assertEqual(rows[0].cells[REFERENCE.name].errors, ["out of order"] * 2)
        self.assertEqual(len(rows[1].cells[OURS.name].results), 2)

    def test_who_is_late_once_is_not_waited_for_again(self):
        def answer(_, scenario, contender):
            if contender is OURS:
                raise subprocess.TimeoutExpired("load", 10)
            return result(5.0)

        rows, _, _ = self.run_all(answer)
        self.assertEqual(rows[0].cells[OURS.name].errors, ["gave up after 10 s (--max-time)"])
        self.assertEqual(len(rows[0].cells[REFERENCE.name].results), 2)

    def answers(self, *steals, budget_s=1e9):
        """What stays of runs with such a share stolen, and how many were taken."""
        runs, taken, notes = [result(100.0 + n, steal_share=s) for n, s in enumerate(steals)], [], []
        kept = measure.Retakes(budget_s).run(lambda: taken.append(runs[len(taken)]) or taken[-1], notes.append)
        self.assertEqual(len(notes), len(taken) - 1)
        return kept, len(taken)

    def test_a_stolen_run_is_taken_again(self):
        kept, taken = self.answers(1.0, 0.0, 0.0)
        self.assertEqual((taken, kept["window"]["steal_share"]), (2, 0.0))
        self.assertEqual(len(kept["stolen_before"]), 1)
        self.assertEqual(self.answers(0.12, 0.0), (result(100.0, steal_share=0.12), 1))

    def test_the_least_stolen_run_stays_and_there_is_an_end(self):
        kept, taken = self.answers(1.0, 0.5, 0.8, 0.0)
        self.assertEqual((taken, kept["window"]["steal_share"]), (3, 0.5))
        self.assertEqual(self.answers(1.0, 0.0, budget_s=-1.0), (result(100.0, steal_share=1.0), 1))

    def test_what_stays_is_what_the_row_shows(self):
        stolen = [0.0, 1.0, 0.0, 0.0, 0.0]  # of OURS, REFERENCE, REFERENCE again, OURS, REFERENCE
        rows, _, done = self.run_all(lambda *_: result(10.0, steal_share=stolen.pop(0) if stolen else 0.0))
        self.assertEqual(stolen, [])
        self.assertEqual([len(c.results) for c in rows[0].cells.values()], [2, 2])
        self.assertEqual([w for w in measure.warnings_of(rows, 0.0) if "took cores" in w], [])

    def test_a_run_that_fails_when_taken_again_has_failed(self):
        runs = [result(100.0, steal_share=1.0), {"ok": False, "error": "lost one"}]
        kept = measure.Retakes(1e9).run(lambda: runs.pop(0), lambda _: None)
        self.assertEqual(kept["error"], "lost one")

    def test_stopped_by_hand(self):
        answers = iter([result(1.0), result(2.0), result(3.0), KeyboardInterrupt()])
        rows, stopped, done = self.run_all(lambda *_: _raise(next(answers)))
        self.assertEqual((stopped, done, len(rows)), (True, [], 1))
        self.assertEqual(rows[0].cells[OURS.name].median(Medians.METRIC), 1.0)

    def test_what_is_left(self):
        plan = measure.plan_of([SCENARIOS["1to1-16"], SCENARIOS["fan-1000"]], [OURS, REFERENCE])
        each, long = (measure.expected_s(self.SETUP, s) for s, _ in plan)
        self.assertEqual(long - each, 1.0)  # its window is twice as long
        self.assertEqual(measure.total_s(self.SETUP, plan), 4 * each + 4 * long)
        progress = measure.Progress(self.SETUP, plan)
        self.assertAlmostEqual(progress.left_s(), measure.total_s(self.SETUP, plan))
        with mock.patch("sys.stderr"):
            progress.before(SCENARIOS["1to1-16"], OURS, 0, 2)
        progress.took(3 * each)
        # Its second run as long as its first, the others three times as long as was thought.
        self.assertAlmostEqual(progress.left_s(), 3 * each + 3 * (2 * each + 4 * long))

    def test_names_of_scenarios(self):
        self.assertTrue(all(s.core for s in scenarios.select([], False)))
        self.assertEqual(len(scenarios.select([], True)), len(scenarios.SCENARIOS))
        self.assertEqual([s.name for s in scenarios.select(["shards-fan-*"], False)], [f"shards-fan-{n}" for n in (1, 2, 4)])
        self.assertEqual([s.name for s in scenarios.select(["churn,fan-100", "idle"], False)], ["fan-100", "churn", "idle"])
        with self.assertRaises(SystemExit):
            scenarios.select(["nobody"], False)


def _raise(what):
    if isinstance(what, BaseException):
        raise what
    return what


class Reports(unittest.TestCase):
    """Of whatever there is: one scenario, one contender, a failed run."""

    def report(self, rows, who, *flags):
        document = {
            "machine": {
                "cpu": "some <CPU>", "virtual": True, "cores": [0, 1], "threads_per_core": 1, "caches": "", "memory_gib": 8,
                "kernel": "6.1", "governor": "", "time": "now",
            },
            "setup": {"runs": 2, "duration_s": 0.5, "warmup_s": 0.2},
            "contenders": [contenders.as_dict(c) | {"version": "v1"} for c in who],
            "says": {},
            "warnings": ["runs differ: " + ", ".join(f"row-{i} (a 40%)" for i in range(9))],
        }  # fmt: skip
        main.fill(document, rows, document["warnings"])
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "a.json"
            main.write_json(document, str(path))
            command = [sys.executable, "-B", "-m", "bench.compare", "--from-json", str(path), "--html", f"{folder}/a.html", *flags]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            page = (pathlib.Path(folder) / "a.html").read_text() if done.returncode in (0, 1) else ""
        self.assertEqual(done.stderr, "")
        if page:
            self.assertNotRegex(page, r'(src|href)="?(https?:|//)|url\(|@import')  # opens without a network
            self.assertIn("some &lt;CPU&gt;", page)
        return done, page

    def test_all_that_is_usual(self):
        latency = {"ours": [result(9.0, 20.0)], "reference": [result(20.0, 60.0)], "floor": [result(8.0, 19.0)]}
        latency |= {"ours_1": [result(9.0, 20.0)], "spin_1": [result(9.0, 7.0)], "reference_1": [result(9.0, 30.0)]}
        rows = [
            row("1to1-16", ours=[10.0, 11.0], reference=[90.0, 91.0], floor=[6.0], ours_1=[9.0], reference_1=[70.0]),
            row("1to1-1024", ours=[100.0], reference=[300.0], floor=[90.0], ours_1=[90.0], reference_1=[300.0]),
            row("latency-10k", **latency),
        ]
        done, page = self.report(rows, WHO, "--markdown", "--model")
        self.assertEqual(done.returncode, 0)
        self.assertIn("| 1→1, 16 B | 10.0 | 90.0 | 6.0 | 9.0 | 70.0 | 9.0× | 7.8× | 1.7 |", done.stdout)
        self.assertIn("32 cores, 16 B", done.stdout)
        self.assertIn("peregrine uring spin @1", page)
        self.assertIn("Throughput by payload size", page)
        # Who stands beside is in the latency table, and makes no other wider.
        header = next(line for line in done.stdout.splitlines() if line.startswith("one core: messages"))
        self.assertNotIn("spin", header)

    def test_strict(self):
        rows = [row("1to1-16", ours=[50.0], reference=[90.0])]
        self.assertEqual(self.report(rows, WHO)[0].returncode, 0)
        self.assertEqual(self.report(rows, WHO, "--strict")[0].returncode, 1)
        rows = [row("1to1-16", ours=[5.0], reference=[90.0])]
        self.assertEqual(self.report(rows, WHO, "--strict")[0].returncode, 0)

    def test_one_contender_one_scenario(self):
        self.assertEqual(self.report([row("1to1-16", ours=[10.0])], [OURS])[0].returncode, 0)
        self.assertEqual(self.report([row("churn", reference=[10.0])], [REFERENCE])[0].returncode, 0)
        self.assertEqual(self.report([], WHO)[0].returncode, 0)

    def test_a_server_elsewhere(self):
        far = Contender("far", url="nats://10.0.0.2:4222", setup=ALL_CORES)
        rows = [measure.Row(SCENARIOS["1to1-16"], {far.name: measure.Cell([result(messages_per_second=2e6)])})]
        done, page = self.report(rows, [far])
        self.assertRegex(done.stdout, r"1→1, 16 B +2\.00 M")
        self.assertIn("2.00 M/s by the clock", page)

    def test_a_failed_run_fails(self):
        rows = [row("1to1-16", ours=[10.0], reference=[90.0])]
        rows[0].cells[OURS.name].errors.append("message 7 came <twice>")
        done, page = self.report(rows, WHO)
        self.assertEqual(done.returncode, 1)
        self.assertIn("message 7 came <twice>", done.stdout)
        self.assertIn("message 7 came &lt;twice&gt;", page)


class Text(unittest.TestCase):
    def test_numbers(self):
        self.assertEqual(table.number(12345.6), "12 346")
        self.assertEqual(table.number(12.34, "ns"), "12.3 ns")
        self.assertEqual(table.number(5.0, "us"), "5.0 µs")
        self.assertEqual(table.number(927, "B"), "927 B")
        self.assertEqual(table.number(2048, "B"), "2.0 KiB")
        self.assertEqual(table.number(None), "–")
        self.assertEqual((ratio_text(12.34), ratio_text(0.034)), ("12.3×", "0.034×"))
        self.assertEqual(table.rate(10.0), "100.00 M")
        self.assertEqual(measure.minutes(89), "89 s")
        self.assertEqual(measure.minutes(600), "10 min")
        self.assertEqual(measure.minutes(7200), "2.0 h")
        self.assertEqual(measure.per_second(20000), "20.0 k")

    def test_ticks_enclose_what_they_are_for(self):
        for low, high in ((7.5, 900.0), (1.0, 1.0), (3.0, 8.0), (0.02, 4e6)):
            ticks = plots.ticks_log(low, high)
            self.assertLessEqual(ticks[0], low)
            self.assertGreaterEqual(ticks[-1], high)
            self.assertLess(len(ticks), 14)

    def test_the_model_asks_for_what_it_needs(self):
        self.assertIn("needs 1to1-*", model.text([], WHO))


class Arguments(unittest.TestCase):
    def test_wrong_ones_are_told(self):
        for given in (
            ["--one-core", "--all-cores"],
            ["--runs", "0"],
            ["--duration", "0"],
            ["--warmup", "-1"],
            ["--server-cores", "x"],
            ["--server-cores", "999"],
            ["--backends", "quick"],
            ["--shards", "1,two"],
            ["--size", "-1"],
            ["--connections", "0"],
            ["--server", ""],
            ["--server", "''"],
            ["--server", "old=/nonexistent/nats-server -D"],
            ["--mtu", "10"],
            ["--json", "/nonexistent/a.json"],
            ["--nonsense"],
            ["--mtu", "9000"],
            ["--wire", "--shards", "2"],
            ["--one-core", "--shards", "2"],
            ["--from-json", "a.json", "--runs", "2"],
            ["--budget", "--quick"],
        ):
            with self.subTest(given), mock.patch("sys.stderr"):
                with self.assertRaises(SystemExit) as ended:
                    arguments(*given)
                self.assertEqual(ended.exception.code, 2)

    def test_what_changes_nothing_is_told(self):
        def why(scenario, *given):
            return main.unheard(arguments(*given), measure.plan_of([SCENARIOS[scenario]], [OURS, OURS_1]))

        self.assertIn("--size 64 changes none", why("1to1-16", "--size", "64"))
        self.assertEqual(why("fan-100", "--size", "64"), "")
        self.assertIn("--connections 3 changes none", why("1to1-16", "--connections", "3"))
        self.assertEqual(why("fan-100", "--connections", "3"), "")
        self.assertIn("nothing to measure", main.unheard(arguments(), measure.plan_of([SCENARIOS["size-64"]], [OURS_1])))

    def test_defaults(self):
        a = arguments()
        self.assertEqual((a.runs, a.duration, a.warmup), (2, 0.5, 0.2))
        self.assertEqual(arguments("--quick").runs, 1)
        a = arguments("--full", "--runs", "1")
        self.assertEqual((a.runs, a.duration, a.warmup), (1, 2.0, 0.5))
        a = arguments("--full", "--quick")
        self.assertEqual((a.runs, a.duration, a.warmup), (1, 0.5, 0.2))


if __name__ == "__main__":
    unittest.main()
