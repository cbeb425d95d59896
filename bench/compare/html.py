"""The report a person reads at a glance: one HTML file, plots as inline SVG, nothing loaded from anywhere."""

from __future__ import annotations

import math
from html import escape
from typing import Any, Callable, Optional

from .scenarios import SCENARIOS, Metric
from .table import FLOOR, REFERENCE, number, rate

# Distinguishable for colour-blind readers too; ours first, the reference, the floor in grey.
OURS = ["#0072b2", "#009e73", "#56b4e9", "#cc79a7", "#f0a500"]
REFERENCE_COLOUR = "#d55e00"
FLOOR_COLOUR = "#8a8a8a"

STYLE = """
:root { --ink: #1c1f23; --soft: #5d656e; --line: #dde1e6; --page: #ffffff; --card: #f7f8fa; --good: #1a7f37; --bad: #c0362c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #a0a8b1; --line: #3a4048; --page: #16191d; --card: #1e2227; --good: #4cc36c; --bad: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 2rem 1.2rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .4rem; }
p { margin: .3rem 0 .8rem; color: var(--soft); max-width: 75ch; }
.facts { white-space: pre-line; font-size: .9rem; }
.warn { border-left: 4px solid #e0a100; background: var(--card); padding: .6rem .9rem; margin: 1rem 0; }
.warn ul { margin: .2rem 0; padding-left: 1.2rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .7rem 1rem; min-width: 9.5rem; flex: 1; }
.tile b { display: block; font-size: 1.6rem; line-height: 1.2; } .tile span { color: var(--soft); font-size: .85rem; }
small { color: var(--soft); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .8rem; }
figcaption { font-weight: 600; margin-bottom: .3rem; } figcaption span { font-weight: 400; color: var(--soft); font-size: .85rem; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .axis { stroke: var(--line); } svg .tick { fill: var(--soft); font-size: 11px; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .85rem; margin-top: .3rem; }
.legend i { display: inline-block; width: 1.1rem; height: .3rem; border-radius: 2px; margin-right: .35rem; vertical-align: middle; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; min-width: 100%; } th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid var(--line); color: var(--soft); font-weight: 600; } td { border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; } .pass { color: var(--good); font-weight: 600; } .miss { color: var(--bad); font-weight: 600; }
"""


class Palette:
    def __init__(self, names: list[str], judged: list[str]) -> None:
        others = [n for n in names if n not in (REFERENCE, FLOOR)]
        ordered = [n for n in others if n in judged] + [n for n in others if n not in judged]
        self._colours = {n: OURS[i % len(OURS)] for i, n in enumerate(ordered)}
        self._colours[REFERENCE] = REFERENCE_COLOUR
        self._colours[FLOOR] = FLOOR_COLOUR

    def __getitem__(self, name: str) -> str:
        return self._colours.get(name, "#666666")

    def legend(self, names: list[str]) -> str:
        return (
            '<div class="legend">'
            + "".join(f'<span><i style="background:{self[n]}"></i>{escape(n)}</span>' for n in names)
            + "</div>"
        )


def _ticks_log(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = max(1, (last - first) // 6)
    return [10.0**e for e in range(first, last + 1, step)]


def _short(value: float) -> str:
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g} {name}"
    return f"{value:g}"


def _bytes(value: float) -> str:
    for size, name in ((2**20, "MiB"), (2**10, "KiB")):
        if value >= size:
            return f"{value / size:g} {name}"
    return f"{value:g} B"


Curve = list[tuple[float, float]]


def line_plot(
    curves: dict[str, Curve],
    palette: Palette,
    x_label: str,
    y_label: str,
    x_text: Callable[[float], str],
    x_position: Callable[[float], float],
    x_ticks: list[float],
    y_text: Callable[[float], str] = _short,
    dots: bool = True,
) -> str:
    """y logarithmic; x through x_position (0..1)."""
    width, height, left, right, top, bottom = 520, 300, 70, 22, 12, 44
    values = [y for c in curves.values() for _, y in c if y > 0]
    if not values:
        return ""
    ticks = _ticks_log(min(values), max(values))
    low, high = math.log10(ticks[0]), math.log10(ticks[-1])
    high = high if high > low else low + 1

    def px(x: float) -> float:
        return left + x_position(x) * (width - left - right)

    def py(y: float) -> float:
        return top + (1 - (math.log10(y) - low) / (high - low)) * (height - top - bottom)

    out = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(y_label)} by {escape(x_label)}">']
    for t in ticks:
        out.append(
            f'<line class="axis" x1="{left}" x2="{width - right}" y1="{py(t):.1f}" y2="{py(t):.1f}"/>'
            f'<text class="tick" x="{left - 6}" y="{py(t) + 4:.1f}" text-anchor="end">{y_text(t)}</text>'
        )
    for t in x_ticks:
        out.append(
            f'<line class="axis" x1="{px(t):.1f}" x2="{px(t):.1f}" y1="{top}" y2="{height - bottom}"/>'
            f'<text class="tick" x="{px(t):.1f}" y="{height - bottom + 15}" text-anchor="middle">{x_text(t)}</text>'
        )
    out.append(
        f'<text class="tick" x="{(left + width - right) / 2}" y="{height - 8}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text class="tick" x="12" y="{(top + height - bottom) / 2}" text-anchor="middle" '
        f'transform="rotate(-90 12 {(top + height - bottom) / 2})">{escape(y_label)}</text>'
    )
    for name, curve in curves.items():
        points = [(px(x), py(y), x, y) for x, y in sorted(curve) if y > 0]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b, _, _ in points)
        out.append(
            f'<polyline points="{path}" fill="none" stroke="{palette[name]}" stroke-width="2.2" stroke-linejoin="round"/>'
        )
        if dots:
            out += [
                f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.4" fill="{palette[name]}"><title>{escape(name)}, {x_text(x)}: '
                f'{y_text(float(f"{y:.3g}"))}</title></circle>'
                for a, b, x, y in points
            ]
    out.append("</svg>")
    return "".join(out)


def _figure(title: str, note: str, body: str, legend: str = "") -> str:
    return (
        f"<figure><figcaption>{escape(title)} <span>{escape(note)}</span></figcaption>{body}{legend}</figure>"
        if body
        else ""
    )


def ratio_bars(goals: list[dict[str, Any]]) -> str:
    """How many times better than the reference, one bar a metric; the mark is the goal, the dashed line is the reference."""
    rows = [g for g in goals if g["ratio"]]
    if not rows:
        return ""
    left, width, line = 440, 1060, 24
    height = 30 + line * len(rows) + 8
    top_ratio = max(10.0, max(g["ratio"] for g in rows) * 1.15)
    low_ratio = min(0.5, min(g["ratio"] for g in rows) * 0.9)

    def px(r: float) -> float:
        return left + (math.log10(r) - math.log10(low_ratio)) / (math.log10(top_ratio) - math.log10(low_ratio)) * (
            width - left - 70
        )

    out = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="ratio to {REFERENCE}">']
    for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200):
        if low_ratio <= t <= top_ratio:
            dash = ' stroke-dasharray="4 3" style="stroke:var(--soft)"' if t == 1 else ""
            out.append(
                f'<line class="axis" x1="{px(t):.1f}" x2="{px(t):.1f}" y1="22" y2="{height - 6}"{dash}/>'
                f'<text class="tick" x="{px(t):.1f}" y="15" text-anchor="middle">{t:g}×</text>'
            )
    for i, g in enumerate(rows):
        y = 28 + i * line
        colour = "var(--bad)" if g["passed"] is False else OURS[0]
        a, b = sorted((px(1), px(g["ratio"])))
        several = len({r["contender"] for r in rows}) > 1
        label = f'{g["title"]}: {g["metric"]}' + (f' [{g["contender"]}]' if several else "")
        out.append(
            f'<text x="{left - 10}" y="{y + 13}" text-anchor="end">{escape(label)}</text>'
            f'<rect x="{a:.1f}" y="{y + 2}" width="{max(1.5, b - a):.1f}" height="{line - 9}" rx="2" style="fill:{colour}"/>'
            f'<text x="{max(a, b) + 6:.1f}" y="{y + 13}">{g["ratio"]:.1f}×</text>'
        )
        if g["goal"].startswith("≥"):
            goal = px(float(g["goal"].strip("≥× ")))
            out.append(
                f'<line x1="{goal:.1f}" x2="{goal:.1f}" y1="{y - 1}" y2="{y + line - 4}" style="stroke:var(--ink)" stroke-width="2.5">'
                f"<title>goal {escape(g['goal'])}</title></line>"
            )
    out.append("</svg>")
    return "".join(out)


class Report:
    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._names: list[str] = document["names"]
        self._palette = Palette(self._names, document["judged"])
        self._known = {s.name: s for s in SCENARIOS}
        self._scenarios = [s for s in document["scenarios"] if s["name"] in self._known]

    def _median(self, scenario: dict[str, Any], name: str, metric: Metric) -> Optional[float]:
        values = sorted(v for v in (metric.value(r) for r in scenario["results"].get(name, [])) if v is not None)
        return (
            values[len(values) // 2]
            if len(values) % 2
            else ((values[len(values) // 2 - 1] + values[len(values) // 2]) / 2 if values else None)
        )

    def _curves(self, family: str, of: Callable[[dict[str, Any], str, Metric], Optional[float]]) -> dict[str, Curve]:
        curves: dict[str, Curve] = {}
        for s in self._scenarios:
            plot, x = self._known[s["name"]].plot
            if plot != family:
                continue
            metric = next(m for m in self._known[s["name"]].metrics if m.key == "cpu")
            for name in self._names:
                y = of(s, name, metric)
                if y:
                    curves.setdefault(name, []).append((x, y))
        return {n: c for n, c in curves.items() if len(c) > 1}

    def _family(
        self,
        family: str,
        title: str,
        note: str,
        x_label: str,
        y_label: str,
        x_text: Callable[[float], str],
        of: Callable[[dict[str, Any], str, Metric], Optional[float]],
        base: float = 10,
    ) -> str:
        curves = self._curves(family, of)
        xs = sorted({x for c in curves.values() for x, _ in c})
        if len(xs) < 2:
            return ""
        low, high = math.log(xs[0]), math.log(xs[-1])
        ticks = xs if len(xs) <= 7 else xs[:: math.ceil(len(xs) / 7)]
        body = line_plot(
            curves, self._palette, x_label, y_label, x_text, lambda x: (math.log(x) - low) / (high - low), ticks
        )
        return _figure(title, note, body, self._palette.legend(list(curves)))

    def _throughput(self, s: dict[str, Any], name: str, metric: Metric) -> Optional[float]:
        ns = self._median(s, name, metric)
        return 1e9 / ns if ns else None

    def _wall_rate(self, s: dict[str, Any], name: str, _: Metric) -> Optional[float]:
        return self._median(s, name, Metric("rate", "", ("window", "messages_per_second"), ""))

    def size_plots(self) -> str:
        return self._family(
            "1→1 by size",
            "Throughput by payload size",
            "1→1, more is better",
            "payload",
            "messages per CPU second",
            _bytes,
            self._throughput,
        ) + self._family(
            "1→1 by size",
            "CPU per message by payload size",
            "1→1, less is better",
            "payload",
            "ns",
            _bytes,
            self._median,
        )

    def scaling_plots(self) -> str:
        return (
            self._family(
                "pairs by connections",
                "Scaling by busy connections",
                "pairs, more is better",
                "connections",
                "messages per second",
                _short,
                self._wall_rate,
            )
            + self._family(
                "pairs by connections",
                "Cost by busy connections",
                "pairs, less is better",
                "connections",
                "CPU ns per message",
                _short,
                self._median,
            )
            + self._family(
                "random subjects by subscriptions",
                "Cost by number of subscriptions",
                "random subjects, less is better",
                "literal subscriptions",
                "CPU ns per message",
                _short,
                self._median,
            )
        )

    def latency_plots(self) -> str:
        def position(percent: float) -> float:  # number of nines: 0, 90, 99, 99.9, 99.99
            return min(1.0, -math.log10(max(1 - percent / 100, 1e-5)) / 4.3)

        out = []
        for s in self._scenarios:
            metric = next((m for m in self._known[s["name"]].metrics if m.key == "p50"), None)
            if not metric:
                continue
            curves: dict[str, Curve] = {}
            for name in self._names:
                runs = sorted(
                    (r for r in s["results"].get(name, []) if metric.value(r) is not None),
                    key=lambda r: metric.value(r) or 0,
                )
                if runs:
                    curve = runs[(len(runs) - 1) // 2]["latency"]["curve"]
                    curves[name] = [(p, max(us, 0.1)) for p, us in curve if p < 99.995]
            body = line_plot(
                curves,
                self._palette,
                "percentile",
                "µs",
                lambda p: f"{p:g} %",
                position,
                [50, 90, 99, 99.9, 99.99],
                lambda y: f"{y / 1000:g} ms" if y >= 1000 else f"{y:g} µs",
                dots=False,
            )
            out.append(_figure(s["title"], "less is better", body, self._palette.legend(list(curves))))
        return "".join(out)

    def numbers(self) -> str:
        head = "".join(f"<th>{escape(n)}</th>" for n in self._names)
        verdicts = {(g["scenario"], g["metric"], g["contender"]): g for g in self._document["goals"]}
        judged = (self._document["judged"] or [""])[0]
        rows = []
        for s in self._scenarios:
            for m in self._known[s["name"]].metrics:
                cells = []
                for n in self._names:
                    v = self._median(s, n, m)
                    extra = (
                        f" <small>({rate(v)}/s)</small>"
                        if v and m.unit == "ns" and m.key in ("cpu", "subscribe")
                        else ""
                    )
                    cells.append(f"<td>{escape(number(v, m.unit))}{extra}</td>")
                g = verdicts.get((s["name"], m.label, judged), {})
                ratio = f"{g['ratio']:.2f}×" if g.get("ratio") else ""
                over = f"{g['over_floor']:.1f}×" if g.get("over_floor") else ""
                verdict = {True: '<td class="pass">pass</td>', False: '<td class="miss">miss</td>'}.get(
                    g.get("passed"), "<td></td>"
                )
                rows.append(
                    f"<tr><td>{escape(s['title'])}: {escape(m.label)}</td>{''.join(cells)}<td>{ratio}</td>"
                    f"<td>{escape(g.get('goal', ''))}</td>{verdict}<td>{escape(g.get('aim', ''))}</td><td>{over}</td></tr>"
                )
        return (
            f'<div class="scroll"><table><thead><tr><th>work</th>{head}<th>ratio</th><th>goal</th><th></th><th>aim</th><th>over floor</th>'
            f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        )

    def tiles(self) -> str:
        judged = (self._document["judged"] or [""])[0]
        goals = [g for g in self._document["goals"] if g["contender"] == judged]
        with_goal = [g for g in goals if g["passed"] is not None]
        out = []
        if with_goal:
            reached = sum(1 for g in with_goal if g["passed"])
            out.append(
                f'<div class="tile"><b class="{"pass" if reached == len(with_goal) else "miss"}">{reached} of {len(with_goal)}</b>'
                "<span>goals reached</span></div>"
            )
        ratios = [g["ratio"] for g in goals if g["ratio"] and g["metric"].startswith("CPU per")]
        if ratios:
            middle = math.exp(sum(map(math.log, ratios)) / len(ratios))
            out.append(
                f'<div class="tile"><b>{middle:.1f}×</b><span>messages per CPU second against {REFERENCE}, geometric mean of '
                f"{len(ratios)} kinds of work</span></div>"
            )
        for title, metric, text in (
            ("1→1, 16 B", "CPU per message", "1→1, 16 B"),
            ("1 M literal subscriptions", "memory each", "less memory a subscription"),
        ):
            g = next((g for g in goals if g["title"] == title and g["metric"] == metric and g["ratio"]), None)
            if g:
                out.append(f'<div class="tile"><b>{g["ratio"]:.1f}×</b><span>{text}</span></div>')
        return f'<div class="tiles">{"".join(out)}</div>' if out else ""


def page(document: dict[str, Any], heading: str) -> str:
    report = Report(document)
    warnings = "".join(f"<li>{escape(w)}</li>" for w in document["warnings"])
    failures = "".join(
        f"<li>{escape(s['name'])}, {escape(n)}: {escape(e)}</li>"
        for s in document["scenarios"]
        for n, errors in s["errors"].items()
        for e in errors
    )
    sections = [
        (
            f"Times better than {REFERENCE}",
            "CPU time, memory or latency of the reference divided by ours, in the same run. "
            "The upright mark is the goal; the dashed line is the reference itself.",
            f"<figure>{ratio_bars(document['goals'])}</figure>" if any(g["ratio"] for g in document["goals"]) else "",
        ),
        ("By payload size", "", report.size_plots()),
        (
            "Latency",
            "Percentile curves. Open loop: measured from when a message should have left, so that a stall counts in full.",
            report.latency_plots(),
        ),
        ("Scaling", "", report.scaling_plots()),
    ]
    body = "".join(
        f"<h2>{escape(title)}</h2>"
        + (f"<p>{escape(text)}</p>" if text else "")
        + (content if content.startswith("<figure><svg") else f'<div class="plots">{content}</div>')
        for title, text, content in sections
        if content
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Peregrine benchmark</title><style>{STYLE}</style></head><body><h1>Peregrine benchmark</h1>"
        f'<p class="facts">{escape(heading)}</p>{report.tiles()}'
        + (f'<div class="warn"><b>Before believing a figure</b><ul>{warnings}</ul></div>' if warnings else "")
        + (f'<div class="warn"><b class="miss">Failed runs</b><ul>{failures}</ul></div>' if failures else "")
        + body
        + "<h2>All numbers</h2><p>Medians over the runs. CPU is that of the server process, per message in and out; in "
        "parentheses the same as messages per CPU second.</p>" + report.numbers() + "</body></html>\n"
    )
