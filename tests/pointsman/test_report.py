"""A gate's report says the verdict first and shows no text as anything but text."""

from __future__ import annotations

import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from mlflow import MlflowClient

from features.encoder import Encoder
from offline_eval.estimating.intervals import Interval
from offline_eval.gate.judging import Case, judge
from offline_eval.gate.verdict import Verdict
from offline_eval.log.reading import fingerprint
from offline_eval.registry import Estimated, Registry, VersionRecord
from pointsman.promotion import report
from pointsman.promotion.report import Report
from policy.config.schema import PolicyConfig
from policy.config.versions import write_config
from tests.offline_eval.simulated import SCALES, START_MS, logged
from tests.policy.linear_model import plain

BETTER = (0.4, 0.8, 0.5)
PNG = b"\x89PNG\r\n\x1a\n"
VOID = {"meta", "img"}


def judged(n: int, **world: object) -> Verdict:
    data = logged(n, **world)
    now_ms = int(data.made_at_ms.max(initial=START_MS))
    return judge(Case(data, "1", "2", SCALES), now_ms)


def reported(verdict: Verdict, **changes: object) -> Report:
    """A verdict with all that goes with it."""
    given = {
        "policy": "default",
        "version": "2",
        "champion": "1",
        "at_ms": 1_700_000_000_000,
        "log": fingerprint(logged(50), "data/log"),
        "estimates": [
            Estimated("1", "quality", "dr", Interval(0.5, 0.4, 0.6)),
            Estimated("2", "quality", "dr", Interval(0.7, 0.6, 0.8, "12 rows carry it")),
            Estimated("2", "cost_usd", "dr", Interval(0.00001234, -math.inf, 0.00002)),
        ],
        "plots": {"value with intervals.png": PNG},
        **changes,
    }
    return Report(verdict, **given)  # type: ignore[arg-type]


class Page(HTMLParser):
    """Checks that tags nest, and collects what a browser would fetch or run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    ("verdict", "word"),
    [
        (judged(2_000, quality=BETTER), "Pass"),
        (judged(2_000, quality=(0.8, 0.4, 0.5)), "Fail"),
        (judged(100, quality=BETTER), "Undecided"),
        (judged(0), "Undecided"),
    ],
    ids=["pass", "fail", "undecided", "empty"],
)
def test_both_forms_say_the_same_with_the_verdict_on_top(verdict: Verdict, word: str):
    """All reasons, checks and figures are in both."""
    whole = reported(verdict)
    markdown, page = report.markdown(whole), Page(report.html(whole))
    assert markdown.splitlines()[2].startswith(f"**{word}: version 2 ")
    assert page.tags[page.tags.index("h1") + 1] == "p"
    plain = markdown.replace("\\", "")
    for text in (*verdict.reasons, *(check.text for check in verdict.checks)):
        assert text in plain
        assert text in page.text
    for text in ("data/log", fingerprint(logged(50), "").digest, "0.7000 (0.6000 to 0.8000)"):
        assert text in plain
        assert text in page.text
    assert "quality (dr) of version 2: 12 rows carry it" in plain
    assert "1.234e-05 (-inf to 2e-05)" in plain
    assert ("What would decide it" in plain) == (word == "Undecided")


def test_an_undecided_report_says_what_would_decide_it():
    """So many rounds, or fewer with a share of the draw."""
    undecided = replace(
        judged(100, quality=BETTER), rounds_needed=1_200, share=0.1, rounds_with_share=300
    )
    told = "At the rate so far, about 1,200 more rounds; about 300 with 10% of the draw."
    assert told in report.markdown(reported(undecided))
    assert told in report.html(reported(undecided))


def test_html_needs_nothing_beside_itself():
    """Plots lie in the page; no script, no address that could be fetched."""
    page = Page(report.html(reported(judged(200))))
    assert [address[:22] for address in page.addresses] == ["data:image/png;base64,"]
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert {"main", "table", "thead", "tbody", "th", "figure"} <= set(page.tags)


def test_names_are_shown_as_they_are():
    """Names of policies, arms and tasks come from users: no markup gets through."""
    evil = '<img src=//x onerror=alert(1)> | `a`\n# b & "c"'
    verdict = judged(200)
    check = replace(verdict.checks[0], name=evil, text=evil)
    verdict = replace(verdict, reasons=(evil,), checks=(check,))
    named = reported(verdict, policy=evil, version=evil, plots={evil: PNG})
    page = Page(report.html(named))
    assert page.tags.count("img") == 1  # the plot
    assert page.text.count("<img src=//x onerror=alert(1)>") >= 4
    markdown = report.markdown(named)
    assert "<img" not in markdown.replace("\\<img", "")
    headings = [line for line in markdown.splitlines() if line.startswith("#")]
    assert len(headings) == markdown.count("\n## ") + 1
    widths = {
        line.replace("\\|", "").count("|") for line in markdown.split("\n") if "onerr" in line
    }
    assert widths <= {0, 4, 5}  # rows of the estimates have three cells, of the checks four


def test_a_summary_is_the_top_of_the_report():
    """For a place that has room for the verdict and its reasons only."""
    whole = reported(judged(200))
    short = report.summary(whole)
    assert short in report.markdown(whole)
    assert len(short.splitlines()) == 2 + len(whole.verdict.reasons)


def test_mlflow_is_told_all_of_it(mlflow_uri: str):
    """Figures, both forms and the plots that they refer to, with the version's own run."""
    store = Registry(mlflow_uri)
    store.log_version(
        VersionRecord(
            "default",
            "2",
            write_config(PolicyConfig()),
            Encoder.default(d_text=0).to_bytes(),
            plain(["a"]).to_stored(),
        )
    )
    whole = reported(judged(200))
    run = store.log_evaluation("default", "2", whole.evaluation())
    client = MlflowClient(mlflow_uri, mlflow_uri)
    (folder,) = client.list_artifacts(run, "gate")
    names = {Path(file.path).name for file in client.list_artifacts(run, folder.path)}
    assert names == {"gate.md", "gate.html", *whole.plots}
    there = client.get_run(run)
    assert there.data.tags["verdict"] == whole.verdict.verdict
    assert there.data.tags["mlflow.note.content"] == report.summary(whole)
    figures = {name: there.data.metrics[name] for name in ("difference", "dr/quality_high")}
    expected = {"difference": whole.verdict.figures["estimate"], "dr/quality_high": 0.8}
    assert figures == pytest.approx(expected)
