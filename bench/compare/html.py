"""The report a person reads at a glance: one HTML file that opens anywhere."""

from __future__ import annotations

import math
from html import escape
from typing import Any, Callable, Optional

from .contenders import REFERENCE
from .goals import Verdict, summary
from .measure import RATE, Row
from .metrics import ALL_CORES, ONE_CORE, Metric
from .plots import (
    FLOOR_COLOUR,
    OURS,
    REFERENCE_COLOUR,
    Bar,
    Curve,
    Ink,
    bandwidth_text,
    bytes_text,
    dot_rows,
    figure,
    legend,
    line_plot,
    ns_text,
    ratio_bars,
    short,
)
from .servers import Contender
from .table import number, per_second, rate

STYLE = """
:root { --ink: #1c1f23; --soft: #5d656e; --line: #dde1e6; --page: #ffffff; --card: #f7f8fa; --good: #1a7f37; --bad: #c0362c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #a0a8b1; --line: #3a4048; --page: #16191d; --card: #1e2227; --good: #4cc36c; --bad: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 2rem 1.2rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.6rem 0 .4rem; }
p { margin: .3rem 0 .8rem; color: var(--soft); max-width: 80ch; }
.facts { white-space: pre-line; font-size: .85rem; max-width: none; }
.warn { border-left: 4px solid #e0a100; background: var(--card); padding: .6rem .9rem; margin: 1rem 0; font-size: .88rem; }
.warn ul { margin: .2rem 0; padding-left: 1.2rem; overflow-wrap: anywhere; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .7rem 1rem; min-width: 11rem; flex: 1; }
.tile b { display: block; font-size: 1.6rem; line-height: 1.2; } .tile span { color: var(--soft); font-size: .85rem; }
small { color: var(--soft); }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .8rem; }
figure.wide { grid-column: 1 / -1; }
figcaption { font-weight: 600; margin-bottom: .3rem; } figcaption span { font-weight: 400; color: var(--soft); font-size: .85rem; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .axis { stroke: var(--line); } svg .tick { fill: var(--soft); font-size: 11px; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .85rem; margin-top: .4rem; }
.legend i { display: inline-block; width: 1.3rem; height: .3rem; border-radius: 2px; margin-right: .35rem; vertical-align: middle; }
.scroll { overflow-x: auto; margin-bottom: 1.4rem; }
table { border-collapse: collapse; font-size: .82rem; min-width: 100%; } th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid var(--line); color: var(--soft); font-weight: 600; } td { border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; } td.text { text-align: left; white-space: normal; }
.pass { color: var(--good); font-weight: 600; } .miss { color: var(--bad); font-weight: 600; }
"""


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
    def __init__(self, rows: list[Row], who: list[Contender], verdicts: list[Verdict]) -> None:
        self._rows = rows
        self._who = who
        self._inks = inks_of(who)
        self._verdicts = verdicts
        self._setups = [s for s in (ALL_CORES, ONE_CORE) if any(c.setup == s for c in who)]

    def _names(self, setup: str) -> list[str]:
        return [c.name for c in self._who if c.setup in ("", setup)]

    def _first(self, setup: str) -> list[Verdict]:
        return [v for v in self._verdicts if v.setup == setup and v.first]

    def tiles(self) -> str:
        out = []
        for setup in self._setups:
            mine = self._first(setup)
            judged = [p for v in mine for p in (v.passed, v.floor_passed) if p is not None]
            if judged:
                css = "pass" if all(judged) else "miss"
                out.append(
                    f'<div class="tile"><b class="{css}">{sum(judged)} of {len(judged)}</b><span>goals met, {setup}</span></div>'
                )
            ratios = [v.ratio for v in mine if v.ratio and v.metric.startswith("CPU per")]
            if ratios:
                mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
                out.append(
                    f'<div class="tile"><b>{mean:.1f}×</b><span>messages per CPU second against {REFERENCE}, {setup}: '
                    f"geometric mean of {len(ratios)} kinds of work</span></div>"
                )
        for scenario, metric, text in (
            ("1to1-16", "CPU per message", "1→1, 16 B"),
            ("subscriptions-1m", "memory each", "less memory a subscription"),
        ):
            v = next((v for v in self._verdicts if v.first and (v.scenario, v.metric) == (scenario, metric)), None)
            if v and v.ratio:
                out.append(f'<div class="tile"><b>{v.ratio:.1f}×</b><span>{text}</span></div>')
        return f'<div class="tiles">{"".join(out)}</div>' if out else ""

    def goals(self) -> str:
        lines = summary([v for v in self._verdicts if v.first])
        lines.sort(key=lambda line: line.setup)
        rows = []
        for line in lines:
            css = "pass" if line.met == line.total else "miss"
            missed = f"missed: {escape(', '.join(line.missed))}" if line.missed else ""
            rows.append(
                f"<tr><td>{escape(line.group)}</td><td>{escape(line.contender)}</td>"
                f'<td class="{css}">{line.met} of {line.total}</td><td class="text">{missed}</td></tr>'
            )
        if not rows:
            return ""
        head = "<th>goals</th><th>of</th><th>met</th><th></th>"
        return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'

    def ratios(self) -> str:
        out = ""
        for setup in self._setups:
            bars = []
            for v in self._first(setup):
                if not v.ratio or v.metric == "latency p99.9":
                    continue
                goal = float(v.goal.strip("≥× ")) if v.goal.startswith("≥") else None
                what = v.title if v.metric.startswith("CPU per") else f"{v.title}: {v.metric}"
                note = f"{v.contender} {number(v.value, v.unit)}, {REFERENCE} {number(v.reference, v.unit)}"
                bars.append(Bar(what, v.ratio, goal, goal is not None and v.passed is False, note))
            # Many bars: those that have to reach something. The others are in "What a message costs".
            bars = [b for b in bars if b.goal] or bars
            who = next((c.name for c in self._who if c.ours and c.setup == setup), "")
            out += figure(
                f"{who} against {REFERENCE}, {setup}", "", ratio_bars(bars, REFERENCE) if bars else "", wide=True
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
                    cells = {n: row.cells[n].median(metric) for n in names if n in row.cells}
                    have = {n: v for n, v in cells.items() if v}
                    if have:
                        rows.append((row.scenario.title, have))
            if rows:
                body = dot_rows(rows, self._inks, ns_text, "CPU per message")
                out += figure(
                    f"CPU of the server per message in and out, {setup}",
                    "less is better; grey is the floor",
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
        ticks = [x for i, x in enumerate(xs) if len(xs) <= 7 or i % math.ceil(len(xs) / 7) == 0]
        body = line_plot(
            curves, self._inks, labels, x_text, lambda x: (math.log(x) - low) / (high - low), ticks, y_text
        )
        below = legend(list(curves), self._inks)
        if growth:
            parts = []
            for name, curve in curves.items():
                (x0, y0), (x1, y1) = min(curve), max(curve)
                parts.append(f"{name} ×{y1 / y0:.1f}")
            logarithmic = math.log(max(xs)) / math.log(max(2.0, min(xs)))
            text = f"from {x_text(xs[0])} to {x_text(xs[-1])}: {', '.join(parts)} (log n: ×{logarithmic:.1f})"
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
        return (
            self._family(family, "Throughput by payload size", f"{note}, more is better", ("payload", per_cpu), bytes_text, self._throughput)
            + self._family(family, "CPU per message by payload size", f"{note}, less is better", ("payload", "CPU per message"), bytes_text, self._cpu, ns_text)
            + self._family(family, "Payload per CPU second", f"{note}, more is better", ("payload", "payload per CPU second"), bytes_text, self._bandwidth, bandwidth_text)
        )  # fmt: skip

    def scaling(self) -> str:
        by_clock, cost = "messages per second", "CPU per message"
        shards = lambda n: f"{n:g} shard{'s' if n > 1 else ''}"  # noqa: E731
        return (
            self._family("pairs by shards", "Scaling by shard, 16 pairs", "by the clock, more is better", ("shards (GOMAXPROCS)", by_clock), shards, self._wall)
            + self._family("pairs by shards", "Cost by shard, 16 pairs", "less is better", ("shards (GOMAXPROCS)", cost), shards, self._cpu, ns_text)
            + self._family("fan-out by shards", "Scaling by shard, 1→100", "by the clock, more is better", ("shards (GOMAXPROCS)", by_clock), shards, self._wall)
            + self._family("churn by shards", "Cost of SUB/UNSUB by shard", "less is better", ("shards (GOMAXPROCS)", "CPU each"), shards, self._cpu, ns_text)
            + self._family("subscriptions by shards", "Memory of a subscription by shard", "less is better", ("shards (GOMAXPROCS)", "memory each"), shards, self._of("memory"), lambda v: short(v) + "B")
            + self._family("pairs by connections", "Throughput by busy connections", "by the clock, more is better", ("connections", by_clock), short, self._wall)
            + self._family("pairs by connections", "Cost by busy connections", "less is better", ("connections", cost), short, self._cpu, ns_text, True)
            + self._family("random subjects by subscriptions", "Cost by subscriptions", "random subjects, less is better", ("literal subscriptions", cost), short, self._cpu, ns_text, True)
            + self._family("random subjects by subscriptions", "Cost of subscribing", "less is better", ("literal subscriptions", "CPU each"), short, self._of("subscribe"), ns_text, True)
            + self._family("random subjects by subscriptions", "Memory by subscriptions", "less is better", ("literal subscriptions", "memory each"), short, self._of("memory"), lambda v: short(v) + "B")
        )  # fmt: skip

    def latencies(self) -> str:
        def position(percent: float) -> float:  # number of nines: 0, 90, 99, 99.9, 99.99
            return min(1.0, -math.log10(max(1 - percent / 100, 1e-5)) / 4.3)

        out = []
        for row in self._rows:
            metric = next((m for m in row.scenario.metrics if m.key == "p50"), None)
            if not metric:
                continue
            curves: dict[str, Curve] = {}
            for name, cell in row.cells.items():
                if middle := cell.middle_result(metric):
                    curves[name] = [(p, max(us, 0.1) * 1e3) for p, us in middle["latency"]["curve"] if p < 99.995]
            body = line_plot(
                curves,
                self._inks,
                ("percentile", "latency"),
                lambda p: f"{p:g} %",
                position,
                [50, 90, 99, 99.9, 99.99],
                ns_text,
                dots=False,
            )
            out.append(figure(row.scenario.title, "less is better", body, legend(list(curves), self._inks)))
        return "".join(out)

    def numbers(self) -> str:
        out = ""
        for setup in self._setups:
            names = self._names(setup)
            ours = next((c.name for c in self._who if c.ours and c.setup == setup), "")
            judged = {(v.scenario, v.metric): v for v in self._verdicts if v.contender == ours}
            rows = []
            for row in (r for r in self._rows if setup in r.scenario.setups):
                for m in row.scenario.metrics:
                    rows.append(self._number_row(row, m, names, judged.get((row.scenario.name, m.label))))
            head = "".join(f"<th>{escape(n)}</th>" for n in names)
            out += (
                f'<div class="scroll"><table><thead><tr><th>{setup}</th>{head}<th>ratio</th><th>goal</th>'
                f'<th>over floor</th><th>goal</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
            )
        return out

    @staticmethod
    def _number_row(row: Row, m: Metric, names: list[str], v: Optional[Verdict]) -> str:
        cells = []
        for n in names:
            value = row.cells[n].median(m) if n in row.cells else None
            extra = rate(value) + "/s" if value and m.unit == "ns" and m.key in ("cpu", "subscribe") else ""
            if value is None and m.key == "cpu" and n in row.cells and (clock := row.cells[n].median(RATE)):
                extra = per_second(clock) + "/s by the clock"
            cells.append(f"<td>{escape(number(value, m.unit))}{f' <small>({extra})</small>' if extra else ''}</td>")

        def verdict(text: str, passed: Optional[bool]) -> str:
            css = {True: ' class="pass"', False: ' class="miss"', None: ""}[passed]
            return f"<td{css}>{escape(text)}{'' if passed is None else ' ✓' if passed else ' ✗'}</td>"

        title = f"{row.scenario.title}: {m.label}"
        ratio = f"{v.ratio:.2f}×" if v and v.ratio else ""
        over = f"{v.over_floor:.2f}×" if v and v.over_floor else ""
        return (
            f"<tr><td>{escape(title)}</td>{''.join(cells)}<td>{ratio}</td>"
            + (verdict(v.goal, v.passed) if v else "<td></td>")
            + f"<td>{over}</td>"
            + (verdict(v.floor_goal.replace(" × floor", "×"), v.floor_passed) if v else "<td></td>")
            + "</tr>"
        )


def page(document: dict[str, Any], rows: list[Row], who: list[Contender], verdicts: list[Verdict], heading: str) -> str:
    report = Page(rows, who, verdicts)
    warnings = "".join(f"<li>{escape(w)}</li>" for w in document["warnings"])
    failures = "".join(
        f"<li>{escape(r.scenario.name)}, {escape(n)}: {escape(e)}</li>"
        for r in rows
        for n, c in r.cells.items()
        for e in c.errors
    )
    sections = [
        ("Goals", "", report.goals()),
        (
            f"Times better than {REFERENCE}",
            "CPU time, memory or latency of the reference divided by ours, in the same run. "
            "The upright mark is the goal; the dashed line is the reference itself.",
            report.ratios(),
        ),
        ("What a message costs", "", report.costs()),
        ("By payload size", "", report.sizes()),
        (
            "Latency",
            "Percentile curves. Open loop: measured from when a message should have left, so that a stall counts in full. "
            "Beyond 99.9 % on a virtual or busy machine the curve is mostly the machine's. Dashed: one core for the server, "
            "the generator spinning on another.",
            report.latencies(),
        ),
        ("Scaling", "", report.scaling()),
    ]
    body = "".join(
        f"<h2>{escape(title)}</h2>"
        + (f"<p>{escape(text)}</p>" if text else "")
        + (f'<div class="plots">{content}</div>' if content.startswith("<figure") else content)
        for title, text, content in sections
        if content
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Peregrine benchmark</title><style>{STYLE}</style></head><body><h1>Peregrine benchmark</h1>"
        f'<p class="facts">{escape(heading)}</p>{report.tiles()}'
        + (f'<div class="warn"><b class="miss">Failed runs</b><ul>{failures}</ul></div>' if failures else "")
        + (f'<div class="warn"><b>Before believing a figure</b><ul>{warnings}</ul></div>' if warnings else "")
        + body
        + "<h2>All numbers</h2><p>Medians over the runs. CPU is that of the server process, per message in and out; in "
        "parentheses the same as messages per CPU second.</p>" + report.numbers() + "</body></html>\n"
    )
