"""The report a person reads at a glance: one HTML file that opens anywhere."""

from __future__ import annotations

import math
from html import escape
from typing import Any, Callable, Optional

from .contenders import REFERENCE

from .goals import LATENCIES, Verdict, floor_misses, summary
from .machine import cores_text
from .measure import RATE, Row
from .metrics import ALL_CORES, ONE_CORE, PERCENTILES, Metric
from .plots import (
    FLOOR_COLOUR,
    OURS,
    REFERENCE_COLOUR,
    Bar,
    Curve,
    Ink,
    apart,
    bandwidth_text,
    bytes_text,
    dot_rows,
    figure,
    legend,
    line_plot,
    memory_text,
    ns_text,
    ratio_bars,
    short,
)
from .servers import Contender
from .table import number, per_second, rate

STYLE = """
:root { color-scheme: light dark; --ink: #1c1f23; --soft: #5d656e; --line: #dde1e6; --page: #ffffff; --card: #f7f8fa;
  --good: #1a7f37; --bad: #c0362c; --kernel: #9a6700; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #a0a8b1; --line: #3a4048; --page: #16191d; --card: #1e2227; --good: #4cc36c; --bad: #ff7b72; --kernel: #d9a520; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 2rem 1.2rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.6rem 0 .4rem; }
p { margin: .3rem 0 .8rem; color: var(--soft); max-width: 90ch; }
.facts { font-size: .88rem; max-width: none; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .9rem; margin: .4rem 0 0; } a { color: inherit; }
.warn { border-left: 4px solid #e0a100; background: var(--card); padding: .6rem .9rem; margin: 1rem 0; font-size: .88rem; }
.warn ul { margin: .2rem 0; padding-left: 1.2rem; overflow-wrap: anywhere; } details { color: var(--soft); } summary { cursor: pointer; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11.5rem, 1fr)); gap: .8rem; margin: 1.2rem 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .7rem 1rem; }
.tile b { display: block; font-size: 1.6rem; line-height: 1.2; } .tile span { color: var(--soft); font-size: .85rem; display: block; line-height: 1.35; }
small { color: var(--soft); }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .8rem; min-width: 0; }
figure.wide { grid-column: 1 / -1; }
figcaption { font-weight: 600; margin-bottom: .3rem; } figcaption span { font-weight: 400; color: var(--soft); font-size: .85rem; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .axis { stroke: var(--line); } svg .tick { fill: var(--soft); font-size: 11px; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .85rem; margin-top: .4rem; }
.legend i { display: inline-block; width: 1.3rem; height: .3rem; border-radius: 2px; margin-right: .35rem; vertical-align: middle; }
.rows { display: grid; grid-template-columns: minmax(0, max-content) minmax(0, 1fr); column-gap: .7rem; font-size: .82rem; line-height: 1.4rem; }
.rows .label { text-align: right; } .ticks, .track { position: relative; height: 1.4rem; margin: 0 3.2rem 0 .6rem; }
.track { background: var(--grid); } .ticks span { position: absolute; transform: translateX(-50%); color: var(--soft); font-size: .78rem; white-space: nowrap; }
.track i { position: absolute; } .track span { position: absolute; padding-left: .4rem; white-space: nowrap; font-variant-numeric: tabular-nums; }
.bar { top: .3rem; height: .8rem; border-radius: 2px; background: #0072b2; } .bar.good { background: var(--good); }
.bar.bad { background: var(--bad); } .bar.kernel { background: var(--kernel); }
.goal { top: .05rem; height: 1.3rem; width: 3px; margin-left: -1px; background: var(--ink); outline: 1px solid var(--card); }
.span { top: .6rem; height: .18rem; background: var(--line); } .dot { top: .3rem; width: .8rem; height: .8rem; margin-left: -.4rem; border-radius: 50%; border: 2px solid; }
.key { font-size: .85rem; color: var(--soft); } .key i { display: inline-block; width: 1.3rem; height: .6rem; border-radius: 2px; margin: 0 .35rem 0 1rem; position: static; }
.legend.aligned { display: grid; grid-template-columns: repeat(auto-fill, minmax(13.5rem, 1fr)); } .legend.aligned small { display: block; padding-left: 1.65rem; line-height: 1.1; }
.scroll { overflow-x: auto; margin-bottom: 1.4rem; }
table { border-collapse: collapse; font-size: .82rem; min-width: 100%; } table.tight { min-width: 0; font-size: .9rem; } th, td { padding: .28rem .5rem; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid var(--line); color: var(--soft); font-weight: 600; } td { border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; } .scroll td:first-child { white-space: normal; min-width: 13rem; } td.text, th.text { text-align: left; white-space: normal; }
.scroll td:first-child, .scroll th:first-child { position: sticky; left: 0; background: var(--page); }
tr.next td { border-top: 2px solid var(--line); }
.pass { color: var(--good); font-weight: 600; } .miss { color: var(--bad); font-weight: 600; } .beyond { color: var(--kernel); font-weight: 600; }
@media (max-width: 640px) { .rows { grid-template-columns: minmax(0, 1fr); } .rows .label { text-align: left; line-height: 1.1rem; margin-top: .3rem; } }
@media print {
  :root { --ink: #000; --soft: #444; --line: #ccc; --page: #fff; --card: #fff; --good: #1a7f37; --bad: #c0362c; --kernel: #9a6700; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } html { font-size: 11px; } body { padding: 0; max-width: none; font-size: 11px; } nav { display: none; }
  figure, .tile, .warn, tr { break-inside: avoid; } h2, figcaption { break-after: avoid; } .scroll { overflow: visible; }
  .plots { grid-template-columns: 1fr 1fr; } table { font-size: .66rem; } th, td { white-space: normal; padding: .15rem .25rem; } }
"""


BARS_KEY = (
    '<div class="key">bars begin at 1×, the reference itself; the upright mark is the goal'
    '<i class="bar good"></i>met<i class="bar bad"></i>missed<i class="bar kernel"></i>missed, and the floor misses it, too</div>'
)


def inks_of(who: list[Contender]) -> dict[str, Ink]:
    """One colour for a program and its backend, in both set-ups."""
    colours: dict[str, str] = {}
    out = {}
    for c in who:
        base = c.name.removesuffix(" @1")
        if base not in colours:
            taken = sum(1 for used in colours.values() if used in OURS)
            fixed = REFERENCE_COLOUR if c.reference else FLOOR_COLOUR if c.relay else ""
            colours[base] = fixed or OURS[taken % len(OURS)]
        out[c.name] = Ink(colours[base], c.setup == ONE_CORE)
    return out


class Page:
    def __init__(
        self, document: dict[str, Any], rows: list[Row], who: list[Contender], verdicts: list[Verdict]
    ) -> None:
        self._document = document
        self._rows = rows
        self._who = who
        self._inks = inks_of(who)
        self._verdicts = verdicts
        self._setups = [s for s in (ALL_CORES, ONE_CORE) if any(c.setup == s for c in who)]

    def _names(self, setup: str) -> list[str]:
        """Those of a set-up that were measured at all; who takes part in some scenarios only is in "Latency"."""
        measured = {n for r in self._rows if setup in r.scenario.setups for n, cell in r.cells.items() if cell.results}
        return [c.name for c in self._who if c.setup in ("", setup) and not c.rows and c.name in measured]

    def _first(self, setup: str) -> list[Verdict]:
        return [v for v in self._verdicts if v.setup == setup and v.first]

    def tiles(self) -> str:
        out = []
        for setup in self._setups:
            mine = self._first(setup)
            judged = [p for v in mine for p in (v.passed, v.floor_passed) if p is not None]
            if judged:
                css = "pass" if all(judged) else "miss"
                beyond = sum(line.beyond for line in summary(mine))
                missed = len(judged) - sum(judged)
                more = f"; of the {missed} missed, the floor misses {beyond}, too" if beyond else ""
                out.append(
                    f'<div class="tile"><b class="{css}">{sum(judged)} of {len(judged)}</b><span>goals met, {setup}{more}</span></div>'
                )
            ratios = [v.ratio for v in mine if v.ratio and v.metric.startswith("CPU per")]
            if ratios:
                mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
                out.append(
                    f'<div class="tile"><b>{mean:.1f}×</b><span>the messages of {REFERENCE} per CPU second, {setup} '
                    f"(geometric mean of {len(ratios)} kinds of work)</span></div>"
                )
        for scenario, metric, text in (
            ("1to1-16", "CPU per message", f"the messages of {REFERENCE} per CPU second, 1→1 of 16 B"),
            ("subscriptions-1m", "memory each", f"less memory for a subscription than {REFERENCE}"),
        ):
            v = next((v for v in self._verdicts if v.first and (v.scenario, v.metric) == (scenario, metric)), None)
            if v and v.ratio:
                out.append(f'<div class="tile"><b>{v.ratio:.1f}×</b><span>{text}</span></div>')
        return f'<div class="tiles">{"".join(out)}</div>' if out else ""

    def goals(self) -> str:
        """A matrix of groups and set-ups; then what was missed, a line each."""
        lines = {(line.group, line.setup): line for line in summary([v for v in self._verdicts if v.first])}
        setups = [s for s in self._setups if any(setup == s for _, setup in lines)]
        rows, missed = [], []
        for group in dict.fromkeys(group for group, _ in lines):
            cells = ""
            for setup in setups:
                line = lines.get((group, setup))
                if not line:
                    cells += "<td></td>"
                    continue
                left = line.total - line.met - line.beyond
                css = "pass" if line.met == line.total else "miss" if left else "beyond"
                more = f" <small>({line.beyond} where the floor misses, too)</small>" if line.beyond else ""
                cells += f'<td class="text"><span class="{css}">{line.met} of {line.total}</span>{more}</td>'
                missed += [(f"{group}, {setup}", text) for text in line.missed]
            rows.append(f"<tr><td>{escape(group)}</td>{cells}</tr>")
        if not rows:
            return ""
        of = {v.setup: v.contender for v in self._verdicts if v.first}
        head = "".join(f'<th class="text">{escape(s)}: {escape(of[s])}</th>' for s in setups)
        out = _table("<th>goals met</th>" + head, rows, "tight")
        if missed:
            body = [f'<tr><td>{escape(group)}</td><td class="text">{escape(text)}</td></tr>' for group, text in missed]
            table = _table('<th>missed</th><th class="text">measured (goal)</th>', body)
            out += f"<details{' open' if len(missed) <= 6 else ''}><summary>What was missed: {len(missed)}</summary>{table}</details>"
        return out

    def ratios(self) -> str:
        out = ""
        for setup in self._setups:
            bars = []
            for v in self._first(setup):
                if not v.ratio or v.metric == "latency p99.9":
                    continue
                goal = float(v.goal.strip("≥× ")) if v.goal.startswith("≥") else None
                what = v.title if v.metric.startswith("CPU per") else f"{v.title}: {v.metric}"
                css = {True: "good", False: "bad", None: ""}[v.passed if goal else None]
                css = "kernel" if css == "bad" and floor_misses(v) else css
                note = f"{v.contender} {number(v.value, v.unit)}, {REFERENCE} {number(v.reference, v.unit)}"
                bars.append(Bar(what, v.ratio, goal, css, note))
            # Many bars: those that have to reach something. The others are in "What a message costs".
            bars = [b for b in bars if b.goal] or bars
            who = next((c.name for c in self._who if c.ours and c.setup == setup), "")
            out += figure(
                f"{who} against {REFERENCE}, {setup}", "longer is better", ratio_bars(bars, REFERENCE), BARS_KEY, wide=True
            )
        return out

    def costs(self) -> str:
        out = ""
        for setup in self._setups:
            names = [n for n in self._names(setup) if not next(c for c in self._who if c.name == n).remote]
            rows = []
            for row in self._rows:
                if setup not in row.scenario.setups:
                    continue
                metric = next((m for m in row.scenario.metrics if m.key == "cpu"), None)
                if metric:
                    cells = {n: cell.median(metric) for n in names if (cell := row.cell(n, setup))}
                    have = {n: v for n, v in cells.items() if v}
                    if have:
                        rows.append((row.scenario.title, have))
            if rows:
                body = dot_rows(rows, self._inks, ns_text, "CPU per message")
                relays = [c for c in self._who if c.relay and c.name in names]
                where = ", measured on all cores (latency rows: here)" if setup == ONE_CORE and any(c.setup != ONE_CORE for c in relays) else ""
                out += figure(
                    f"CPU of the server per message in and out, {setup}",
                    "left is better" + (f"; grey is the floor{where}" if relays else ""),
                    body,
                    legend(names, self._inks),
                    wide=True,
                )
        return out

    def _curves(self, family: str, of: Callable[[Row, str], Optional[float]]) -> dict[str, Curve]:
        curves: dict[str, Curve] = {}
        for row in self._rows:
            plot, x = row.scenario.plot
            for name in row.cells if plot == family else []:
                if y := of(row, name):
                    curves.setdefault(name, []).append((x, y))
        return {n: c for n, c in curves.items() if len(c) > 1}

    def _family(
        self,
        family: str,
        title: str,
        note: str,
        labels: tuple[str, str],
        x_text: Callable[[float], str],
        of: Callable[[Row, str], Optional[float]],
        y_text: Callable[[float], str] = short,
        growth: bool = False,
    ) -> str:
        curves = self._curves(family, of)
        xs = sorted({x for c in curves.values() for x, _ in c})
        if len(xs) < 2:
            return ""
        low, high = math.log(xs[0]), math.log(xs[-1])
        position = lambda x: (math.log(x) - low) / (high - low)  # noqa: E731
        body = line_plot(curves, self._inks, labels, x_text, position, apart(xs, position), y_text)
        below = legend(list(curves), self._inks)
        if growth:
            grown = {name: max(curve)[1] / min(curve)[1] for name, curve in curves.items()}
            logarithmic = math.log(max(xs)) / math.log(max(2.0, min(xs)))
            text = f"from {x_text(xs[0])} to {x_text(xs[-1])}: "
            text += ", ".join(f"{name} ×{times:.1f}" for name, times in grown.items()) + f" (log n: ×{logarithmic:.1f})"
            relay = next((c.name for c in self._who if c.relay and c.name in grown), "")
            if relay:
                rest = ", ".join(f"{n} ×{times / grown[relay]:.1f}" for n, times in grown.items() if n != relay)
                text += f"; measured by the floor, whose batches get smaller, too: {rest}"
            below += f"<p><small>{escape(text)}</small></p>"
        return figure(title, note, body, below)

    def _cpu(self, row: Row, name: str) -> Optional[float]:
        metric = next((m for m in row.scenario.metrics if m.key == "cpu"), None)
        return row.cells[name].median(metric) if metric else None

    def _throughput(self, row: Row, name: str) -> Optional[float]:
        ns = self._cpu(row, name)
        return 1e9 / ns if ns else None

    def _bandwidth(self, row: Row, name: str) -> Optional[float]:
        ns, size = self._cpu(row, name), row.scenario.plot[1]
        return size * 1e9 / ns if ns and size > 1 else None

    def _times(self, row: Row, name: str) -> Optional[float]:
        """How many times better than the reference of its set-up."""
        me = next(c for c in self._who if c.name == name)
        other = next((c.name for c in self._who if c.reference and c.setup == me.setup and c.name in row.cells), "")
        mine, reference = self._cpu(row, name), self._cpu(row, other) if other and me.ours else None
        return reference / mine if mine and reference else None

    @staticmethod
    def _wall(row: Row, name: str) -> Optional[float]:
        return row.cells[name].median(RATE)

    def _of(self, key: str) -> Callable[[Row, str], Optional[float]]:
        def read(row: Row, name: str) -> Optional[float]:
            metric = next((m for m in row.scenario.metrics if m.key == key), None)
            return row.cells[name].median(metric) if metric else None

        return read

    def sizes(self) -> str:
        family, note = "1→1 by size", "1→1"
        per_cpu = "messages per CPU second"
        elsewhere = any(c.remote for c in self._who)  # of such a server the clock is all there is
        return (
            (self._family(family, "Messages per second by payload size", f"{note}, by the clock, more is better", ("payload", "messages per second"), bytes_text, self._wall) if elsewhere else "")
            + self._family(family, "Throughput by payload size", f"{note}, more is better", ("payload", per_cpu), bytes_text, self._throughput)
            + self._family(family, "CPU per message by payload size", f"{note}, less is better", ("payload", "CPU per message"), bytes_text, self._cpu, ns_text)
            + self._family(family, "Payload per CPU second", f"{note}, more is better", ("payload", "payload per CPU second"), bytes_text, self._bandwidth, bandwidth_text)
            + self._family(family, f"Times better than {REFERENCE} by payload size", f"{note}, more is better", ("payload", "CPU per message, times better"), bytes_text, self._times, lambda v: f"{v:g}×")
        )  # fmt: skip

    def scaling(self) -> str:
        by_clock, cost = "messages per second", "CPU per message"
        shards = lambda n: f"{n:g}"  # noqa: E731
        by_shards = f"shards ({REFERENCE}: GOMAXPROCS); this machine has {len(self._document['machine']['cores'])} cores"
        return (
            self._family("pairs by shards", "Scaling by shard, 16 pairs", "by the clock, more is better", (by_shards, by_clock), shards, self._wall)
            + self._family("pairs by shards", "Cost by shard, 16 pairs", "less is better", (by_shards, cost), shards, self._cpu, ns_text)
            + self._family("fan-out by shards", "Scaling by shard, 1→100", "by the clock, more is better", (by_shards, by_clock), shards, self._wall)
            + self._family("churn by shards", "Cost of SUB/UNSUB by shard", "less is better", (by_shards, "CPU each"), shards, self._cpu, ns_text)
            + self._family("subscriptions by shards", "Memory of a subscription by shard", "less is better", (by_shards, "memory each"), shards, self._of("memory"), memory_text)
            + self._family("pairs by connections", "Throughput by busy connections", "by the clock, more is better", ("connections", by_clock), short, self._wall)
            + self._family("pairs by connections", "Cost by busy connections", "less is better", ("connections", cost), short, self._cpu, ns_text, True)
            + self._family("random subjects by subscriptions", "Cost by subscriptions", "random subjects, less is better", ("literal subscriptions", cost), short, self._cpu, ns_text, True)
            + self._family("random subjects by subscriptions", "Cost of subscribing", "less is better", ("literal subscriptions", "CPU each"), short, self._of("subscribe"), ns_text, True)
            + self._family("random subjects by subscriptions", "Memory by subscriptions", "less is better", ("literal subscriptions", "memory each"), short, self._of("memory"), memory_text)
        )  # fmt: skip

    def latencies(self) -> str:
        def position(percent: float) -> float:  # number of nines: 0, 90, 99, 99.9, 99.99
            return min(1.0, -math.log10(max(1 - percent / 100, 1e-5)) / 4.3)

        out = []
        for row in self._rows:
            metric = next((m for m in row.scenario.metrics if m.key == "p50"), None)
            curves: dict[str, Curve] = {}
            for name, cell in row.cells.items() if metric else ():
                if middle := cell.middle_result(metric):
                    curves[name] = [(p, max(us, 0.1) * 1e3) for p, us in middle["latency"]["curve"] if p < 99.995]
            values = [y for curve in curves.values() for _, y in curve]
            # A plot for each set-up, beside each other and on one scale.
            for setup in self._setups:
                names = [c.name for c in self._who if c.name in curves and c.setup == setup]
                if not names:
                    continue
                if not any(c.relay for c in self._who if c.name in names):
                    names += [c.name for c in self._who if c.name in curves and c.relay and not c.setup and setup == ALL_CORES]
                body = line_plot(
                    {n: curves[n] for n in names},
                    self._inks,
                    ("percentile", "latency"),
                    lambda p: f"{p:g} %",
                    position,
                    [50, 90, 99, 99.9, 99.99],
                    ns_text,
                    dots=False,
                    y_range=(min(values), max(values)),
                )
                says = {
                    n: ", ".join(f"{p.key} {_us(row.cells[n].median(p))}" for p in PERCENTILES if p.key in ("p50", "p99"))
                    for n in names
                }
                title = f"{row.scenario.title}, {setup}"
                out.append(figure(title, "lower is better", body, legend(names, self._inks, says)))
        return "".join(out)

    def latency_numbers(self) -> str:
        verdicts = {(v.scenario, v.metric, v.contender): v for v in self._verdicts}
        rows = []
        for row in self._rows:
            metric = next((m for m in row.scenario.metrics if m.key == "p50"), None)
            found = [c for c in self._who if metric and c.name in row.cells and row.cells[c.name].values(metric)]
            for i, c in enumerate(found):
                cells = [f"<td>{_us(row.cells[c.name].median(p))}</td>" for p in PERCENTILES]
                cells += [
                    _ratio_cell(verdicts.get((row.scenario.name, f"latency {p}", c.name))) for p in ("p50", "p99")
                ]
                title = escape(row.scenario.title) if i == 0 else ""
                rows.append(
                    f'<tr{" class=next" if i == 0 else ""}><td>{title}</td><td class="text">{escape(c.name)}</td>{"".join(cells)}</tr>'
                )
        if not rows:
            return ""
        head = "".join(f"<th>{p.label.split()[-1]}</th>" for p in PERCENTILES)
        return _table(f'<th>latency</th><th class="text">server</th>{head}<th>p50 against {REFERENCE}</th><th>p99 against {REFERENCE}</th>', rows)

    def took_part(self) -> str:
        rows = []
        for c in self._document["contenders"]:
            says = self._document["says"].get(c["name"], {})
            backend = says.get("backend", "")
            shards = says.get("shards", "").split(" ")[0]
            settings = [f"{k}={v}" for k, v in c["environment"].items()]
            settings += [" ".join(c["flags"])] if c.get("flags") and "-" not in c["flags"] else []
            pinned = [cores_text(c["cores"]), cores_text(c["load_cores"])]
            if c["url"]:
                pinned[0] = "elsewhere, or as it was started"
            cells = [c["version"], backend, shards, *pinned, "; ".join(settings)]
            rows.append(
                f"<tr><td>{escape(c['name'])}</td>" + "".join(f'<td class="text">{escape(x)}</td>' for x in cells) + "</tr>"
            )
        names = ("version", "backend", "shards", "server on", "generator on", "settings")
        return _table("<th>server</th>" + "".join(f'<th class="text">{n}</th>' for n in names), rows)

    def numbers(self) -> str:
        out = ""
        for setup in self._setups:
            names = self._names(setup)
            if not names:
                continue
            ours = next((c.name for c in self._who if c.ours and c.setup == setup and not c.rows), "")
            judged = {(v.scenario, v.metric): v for v in self._verdicts if v.contender == ours}
            rows = []
            for row in (r for r in self._rows if setup in r.scenario.setups):
                for m in (m for m in row.scenario.metrics if m.key not in LATENCIES):
                    rows.append(self._number_row(row, m, setup, names, judged.get((row.scenario.name, m.label))))
            head = "".join(f"<th>{escape(n)}</th>" for n in names)
            out += _table(f"<th>{setup}</th>{head}<th>against {REFERENCE}</th><th>× floor</th>", rows)
        return out

    @staticmethod
    def _number_row(row: Row, m: Metric, setup: str, names: list[str], v: Optional[Verdict]) -> str:
        cells = []
        for n in names:
            value = cell.median(m) if (cell := row.cell(n, setup)) else None
            extra = rate(value) + "/s" if value and m.unit == "ns" and m.key in ("cpu", "subscribe") else ""
            if value is None and m.key == "cpu" and n in row.cells and (clock := row.cells[n].median(RATE)):
                cells.append(f"<td>{per_second(clock)}/s by the clock</td>")
                continue
            cells.append(f"<td>{escape(number(value, m.unit))}{f' <small>({extra})</small>' if extra else ''}</td>")

        over = ""
        if v and v.over_floor:
            over = _marked(f"{v.over_floor:.2f}", v.floor_goal.replace(" × floor", ""), v.floor_passed)
        title = f"{row.scenario.title}: {m.label}"
        return f"<tr><td>{escape(title)}</td>{''.join(cells)}{_ratio_cell(v)}<td>{over}</td></tr>"


def _us(value: Optional[float]) -> str:
    """Of µs, in words."""
    if value is None:
        return "–"
    return f"{value / 1000:.1f} ms" if value >= 1000 else f"{value:.0f} µs" if value >= 100 else f"{value:.1f} µs"


def _table(head: str, rows: list[str], css: str = "") -> str:
    return f'<div class="scroll"><table class="{css}"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _marked(text: str, goal: str, passed: Optional[bool], beyond: bool = False) -> str:
    """A figure with its goal, and whether it met it."""
    if passed is None:
        return escape(text)
    css, mark = ("pass", "✓") if passed else ("beyond" if beyond else "miss", "✗")
    return f'{escape(text)} <small>({escape(goal)})</small> <span class="{css}">{mark}</span>'


def _ratio_cell(v: Optional[Verdict]) -> str:
    if not v or not (v.ratio or v.passed is not None):
        return "<td></td>"
    text = f"{v.ratio:.2f}×" if v.ratio else ""
    return f"<td>{_marked(text, v.goal, v.passed, floor_misses(v) is not None)}</td>"


def _warning(text: str) -> str:
    """A sentence; the long list of rows behind it folded away."""
    says, colon, rows = text.rpartition(": ")
    if not colon or rows.count(", ") < 3:
        return f"<li>{escape(text)}</li>"
    return f"<li>{escape(says)}: {rows.count(', ') + 1} of them<details><summary>which</summary>{escape(rows)}</details></li>"


def page(document: dict[str, Any], rows: list[Row], who: list[Contender], verdicts: list[Verdict], heading: str) -> str:
    report = Page(document, rows, who, verdicts)
    warnings = "".join(_warning(w) for w in document["warnings"])
    failures = "".join(
        f"<li>{escape(r.scenario.name)}, {escape(n)}: {escape(e)}</li>"
        for r in rows
        for n, c in r.cells.items()
        for e in c.errors
    )
    sections = [
        (
            f"Times better than {REFERENCE}",
            "CPU time, memory or latency of the reference divided by ours, in the same run.",
            report.ratios(),
        ),
        ("What a message costs", "", report.costs()),
        (
            "Latency",
            "Percentile curves. Open loop: measured from when a message should have left, so that a stall counts in full. "
            "Beyond 99.9 % on a virtual or busy machine the curve is mostly the machine's. Dashed: one core for the server, "
            "the generator on another, spinning. Named spin: a shard that never sleeps (idle: spin) and so takes its core whole; "
            "it stands beside and is not judged. Figures: medians over the runs; curves: the run in the middle.",
            report.latencies(),
        ),
        ("By payload size", "", report.sizes()),
        ("Scaling", "", report.scaling()),
        (
            "All numbers",
            "Medians over the runs. CPU is that of the server process, per message in and out; in parentheses the same as "
            "messages per CPU second.",
            report.numbers() + report.latency_numbers(),
        ),
        ("What ran, and where", heading.split("\n  ", 1)[0].replace("\n", "; "), report.took_part()),
    ]
    sections = [s for s in sections if s[2]]
    links = "".join(f'<a href="#{i}">{escape(title)}</a>' for i, (title, _, _) in enumerate(sections))
    body = "".join(
        f'<h2 id="{i}">{escape(title)}</h2>'
        + (f"<p>{escape(text)}</p>" if text else "")
        + (f'<div class="plots">{content}</div>' if content.startswith("<figure") else content)
        for i, (title, text, content) in enumerate(sections)
    )
    versions = {c["name"].removesuffix(" @1"): c["version"] for c in document["contenders"] if c["ours"] or c["reference"]}
    cable = [line for line in heading.split("\n") if line.startswith("over a cable")]
    lines = [*heading.split("\n")[:2], *cable, "; ".join(dict.fromkeys(versions.values()))]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Peregrine benchmark</title><style>{STYLE}</style></head><body><h1>Peregrine benchmark</h1>"
        f'<p class="facts">{"<br>".join(map(escape, lines))}</p><nav>{links}</nav>{report.tiles()}'
        + (f'<div class="warn"><b class="miss">Failed runs</b><ul>{failures}</ul></div>' if failures else "")
        + report.goals()
        + (f'<div class="warn"><b>Before believing a figure</b><ul>{warnings}</ul></div>' if warnings else "")
        + body
        + "</body></html>\n"
    )
