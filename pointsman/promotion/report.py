"""A gate's verdict as a page for people: Markdown, and HTML that needs nothing beside itself.

One walk makes a list of blocks, two renderers write them down. Decides nothing and draws nothing:
plots are handed in.
"""

from __future__ import annotations

import base64
import html as escaping
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

from offline_eval.estimating.intervals import Interval
from offline_eval.gate.verdict import Check, Verdict
from offline_eval.log.reading import Range
from offline_eval.registry import Estimated, Evaluation, gate_metrics

_VERDICTS = {
    "pass": "Pass: version {version} may become champion of {policy}.",
    "fail": "Fail: version {version} may not become champion of {policy}.",
    "undecided": "Undecided: version {version} may not become champion of {policy} yet.",
}
_STATES = {
    "ok": "ok",
    "blocks": "holds back for now",
    "fails": "fails",
    "not evaluable": "not evaluable",
}
_DIAGNOSTICS = (
    ("overlap", "effective_rows", "effective rows"),
    ("overlap", "max_weight", "largest importance weight"),
    ("overlap", "unsupported", "challenger's probability where the log has none"),
    ("propensities", "log_e", "log evidence against the logged propensities"),
    ("arrival", "missing", "share of rewards that are missing"),
    ("arrival", "spread", "spread of that share between arms"),
    ("recency", "age_days", "age of the newest row, days"),
)
_MARKS = re.compile(r"([\\`*_{}\[\]<>|#~$&])")  # what Markdown reads as more than text
_STYLE = """
:root { color-scheme: light dark; --line: #8886 }
:root { --pass: #1a7f37; --fail: #cf222e; --undecided: #9a6700 }
@media (prefers-color-scheme: dark) {
  :root { --pass: #4ac26b; --fail: #ff7b72; --undecided: #d4a72c }
}
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
.verdict { font-size: 1.25rem; font-weight: 600; border-left: .4rem solid; padding-left: .8rem }
.pass { color: var(--pass) } .fail { color: var(--fail) } .undecided { color: var(--undecided) }
.wide { overflow-x: auto }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { border: 1px solid var(--line); padding: .3rem .6rem }
th, td { text-align: left; vertical-align: top }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
img { max-width: 100%; background: white }
"""


@dataclass(frozen=True, slots=True)
class _Heading:
    text: str


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    kind: str | None = None  # of a verdict


@dataclass(frozen=True, slots=True)
class _Items:
    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Table:
    """The first cell of each row names the row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class _Picture:
    name: str
    png: bytes


_Block = _Heading | _Text | _Items | _Table | _Picture


@dataclass(frozen=True, slots=True)
class Report:
    """What a page tells: the verdict on `version` against `champion`, and what it was made from.

    `plots` are PNG files by name. Names are shown as they are, whatever they hold.
    """

    verdict: Verdict
    policy: str
    version: str
    champion: str
    at_ms: int
    log: Range | None = None
    estimates: Sequence[Estimated] = ()
    plots: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"Gate of {self.policy}: version {self.version} against champion {self.champion}"

    def evaluation(self) -> Evaluation:
        """All that MLflow is to know of the verdict, both forms of the page among it."""
        return Evaluation(
            at_ms=self.at_ms,
            champion=self.champion,
            verdict=self.verdict.verdict,
            summary=summary(self),
            metrics=gate_metrics(self.verdict, self.version, self.estimates),
            log=self.log,
            files={
                **self.plots,
                "gate.md": markdown(self).encode(),
                "gate.html": html(self).encode(),
            },
        )


def summary(report: Report) -> str:
    """The verdict and its reasons, as Markdown."""
    return "\n\n".join(map(_as_markdown, _judged(report)))


def markdown(report: Report) -> str:
    """The page as Markdown. Plots are referred to as files beside it."""
    blocks = map(_as_markdown, _blocks(report))
    return "\n\n".join([f"# {_marked(report.title)}", *blocks]) + "\n"


def html(report: Report) -> str:
    """The page as HTML, with its plots inside."""
    title = escaping.escape(report.title)
    body = "\n".join([f"<h1>{title}</h1>", *map(_as_html, _blocks(report))])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _blocks(report: Report) -> Iterator[_Block]:
    verdict = report.verdict
    yield from _judged(report)
    yield _Text(f"Judged at {_time(report.at_ms)}.")
    yield from _still_needed(verdict)
    yield from _difference(verdict.figures)
    yield from _checks(verdict.checks)
    yield from _estimates(report)
    yield from _log(report.log)
    yield from _diagnostics(verdict.checks)
    if report.plots:
        yield _Heading("Plots")
        yield from (_Picture(name, png) for name, png in report.plots.items())


def _judged(report: Report) -> Iterator[_Block]:
    verdict = report.verdict
    told = _VERDICTS[verdict.verdict].format(version=report.version, policy=report.policy)
    yield _Text(f"{told} It was compared with version {report.champion}:", verdict.verdict)
    yield _Items(verdict.reasons)


def _still_needed(verdict: Verdict) -> Iterator[_Block]:
    if verdict.verdict != "undecided":
        return
    yield _Heading("What would decide it")
    if verdict.rounds_needed is None:
        yield _Text("No number of further rounds can be named; the reasons above say why.")
        return
    told = f"At the rate so far, about {verdict.rounds_needed:,} more rounds"
    if verdict.share is not None and verdict.rounds_with_share is not None:
        told += f"; about {verdict.rounds_with_share:,} with {verdict.share:.0%} of the draw"
    yield _Text(told + ".")


def _difference(figures: Mapping[str, float]) -> Iterator[_Block]:
    if not math.isfinite(figures.get("estimate", math.nan)):
        return
    confidence = f"{1.0 - 2.0 * figures['alpha']:.0%}"
    low, high = figures["worst_if_missing"], figures["best_if_missing"]
    yield _Heading("The difference")
    yield _Table(
        ("challenger - champion, in reward", "value"),
        (
            ("estimate", _signed(figures["estimate"])),
            (f"interval, {confidence}", f"{_signed(figures['low'])} to {_signed(figures['high'])}"),
            ("later half of the rounds", _signed(figures["recent"])),
            (
                "rounds, those with a reward",
                f"{figures['rounds']:,.0f}, {figures['rewarded']:,.0f}",
            ),
            ("whatever missing rewards were", f"{_signed(low)} to {_signed(high)}"),
            (
                "log evidence that it is better, its peak, what is needed",
                ", ".join(
                    _number(figures[n])
                    for n in ("log_e_better", "log_e_better_peak", "log_e_needed")
                ),
            ),
        ),
    )


def _checks(checks: Sequence[Check]) -> Iterator[_Block]:
    yield _Heading("Checks")
    rows = [
        (
            check.name,
            _STATES[check.state],
            check.text,
            ", ".join(f"{name} {_number(value)}" for name, value in check.figures.items()),
        )
        for check in checks
    ]
    yield _Table(("check", "state", "what was found", "figures"), rows)


def _estimates(report: Report) -> Iterator[_Block]:
    estimates, version, champion = report.estimates, report.version, report.champion
    if not estimates:
        return
    found = {(e.component, e.estimator, e.version): e.interval for e in estimates}
    names = dict.fromkeys((e.component, e.estimator) for e in estimates)
    rows = [
        (
            f"{component} ({estimator})",
            _interval(found.get((component, estimator, champion))),
            _interval(found.get((component, estimator, version))),
        )
        for component, estimator in names
    ]
    yield _Heading("Estimates")
    yield _Table(("estimate", f"champion {champion}", f"challenger {version}"), rows)
    warned = dict.fromkeys(
        f"{e.component} ({e.estimator}) of version {e.version}: {e.interval.warning}"
        for e in estimates
        if e.interval.warning
    )
    if warned:
        yield _Items(tuple(warned))


def _log(log: Range | None) -> Iterator[_Block]:
    if log is None:
        return
    yield _Heading("The log that was used")
    yield _Table(
        ("what", "value"),
        (
            ("path", log.path),
            ("rows", f"{log.rows:,}"),
            ("made from", _time(log.from_ms)),
            ("made before", _time(log.to_ms)),
            ("digest of the decision ids", log.digest),
        ),
    )


def _diagnostics(checks: Sequence[Check]) -> Iterator[_Block]:
    figures = {check.name: check.figures for check in checks}
    rows = [
        (label, _number(figures[name][key]))
        for name, key, label in _DIAGNOSTICS
        if key in figures.get(name, {})
    ]
    if rows:
        yield _Heading("Diagnostics")
        yield _Table(("diagnostic", "value"), rows)


def _as_markdown(block: _Block) -> str:
    match block:
        case _Heading(text):
            return f"## {_marked(text)}"
        case _Text(text, kind):
            return f"**{_marked(text)}**" if kind else _marked(text)
        case _Items(texts):
            return "\n".join(f"- {_marked(text)}" for text in texts)
        case _Table(head, rows):
            lines = (map(_marked, head), ["---"] * len(head), *(map(_marked, r) for r in rows))
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case _Picture(name, _):
            return f"![{_marked(name)}]({quote(name)})"


def _as_html(block: _Block) -> str:
    match block:
        case _Heading(text):
            return f"<h2>{escaping.escape(text)}</h2>"
        case _Text(text, kind):
            attribute = f' class="verdict {kind}"' if kind else ""
            return f"<p{attribute}>{escaping.escape(text)}</p>"
        case _Items(texts):
            items = "".join(f"<li>{escaping.escape(text)}</li>" for text in texts)
            return f"<ul>{items}</ul>"
        case _Table(head, rows):
            columns = "".join(f'<th scope="col">{escaping.escape(text)}</th>' for text in head)
            body = "\n".join(map(_html_row, rows))
            return (
                f'<div class="wide"><table>\n<thead><tr>{columns}</tr></thead>\n'
                f"<tbody>\n{body}\n</tbody>\n</table></div>"
            )
        case _Picture(name, png):
            data = base64.b64encode(png).decode()
            alt = escaping.escape(name)
            return f'<figure><img alt="{alt}" src="data:image/png;base64,{data}"></figure>'


def _html_row(row: Sequence[str]) -> str:
    name, *others = map(escaping.escape, row)
    cells = "".join(f"<td>{cell}</td>" for cell in others)
    return f'<tr><th scope="row">{name}</th>{cells}</tr>'


def _marked(text: str) -> str:
    r"""Text that Markdown shows as it is, on one line.

    >>> print(_marked("a|b_c"))
    a\|b\_c
    """
    return _MARKS.sub(r"\\\1", " ".join(text.split()))


def _interval(interval: Interval | None) -> str:
    if interval is None or math.isnan(interval.estimate):
        return "not known"
    low, high = _number(interval.low), _number(interval.high)
    return f"{_number(interval.estimate)} ({low} to {high})"


def _signed(value: float) -> str:
    return f"{value:+.4f}"


def _number(value: float) -> str:
    """Four digits behind the point, or four that count where a number is small.

    >>> [_number(v) for v in (1234.0, 0.12345, 0.00001234)]
    ['1,234', '0.1235', '1.234e-05']
    """
    if value.is_integer() or not abs(value) < 1_000:  # infinite ones as well
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) >= 1e-3 else f"{value:.4g}"


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
