"""What the documents show can be run: commands, Python and configurations, in their order."""

from __future__ import annotations

import gzip
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pointsman.cli import cli
from pointsman.trying import demo
from pointsman.trying.outcomes import save
from pointsman.trying.trial import Service
from policy.config.schema import Config
from policy.config.toml import parse, to_toml

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HERE = re.compile(r"(?:127\.0\.0\.1|localhost):8080")
CALLS = """request,asked_at,model,stars,team,app,p
1,2026-01-31T12:00:00Z,gpt,5,sales,hrm,0.5
2,2026-01-31T12:00:01Z,llama,2,tech,crm,0.25
"""
DSJSON = (
    '{"EventId":"e%d","Timestamp":"2026-01-31T12:00:00Z","a":[1,2],"p":[0.8,0.2],'
    '"_label_cost":-1.0,"_label_probability":0.8,"_label_Action":1,"_labelIndex":0,'
    '"c":{"app":"hrm","_multi":[{"_tag":"a"},{"_tag":"b"}]}}\n'
)
FEW = 60  # rounds between commands that look at the log


def blocks(name: str, *languages: str) -> list[tuple[str, str]]:
    """Of one document: (language, text) of its blocks in these languages."""
    found = BLOCK.findall((ROOT / name).read_text("utf-8"))
    return [(language, text) for language, text in found if language in languages]


def commands(text: str) -> list[list[str]]:
    """The words of each command of a block; one may go over several lines."""
    found, line = [], ""
    for more in text.splitlines():
        line += more + "\n"
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # within quotes
            continue
        if words:
            found.append(words)
        line = ""
    assert not line, f"not a command: {line}"
    return found


@pytest.fixture(scope="module")
def outcomes() -> Any:
    return demo.make(300)


@pytest.fixture
def place(
    tmp_path: Path, outcomes: Any, new_mlflow: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    """A folder with all that the documents' commands name, and a running service over it."""
    monkeypatch.chdir(tmp_path)
    save(outcomes, tmp_path / "FOLDER")
    (tmp_path / "personalizer").mkdir()
    (tmp_path / "personalizer" / "1.json").write_text("".join(DSJSON % i for i in range(FEW)))
    (tmp_path / "calls.csv.gz").write_bytes(gzip.compress(CALLS.encode()))
    tomls = [text for _, text in blocks("docs/offline.md", "toml")]
    for name, text in zip(("columns.toml", "sweep.toml"), tomls, strict=True):
        (tmp_path / name).write_text(text)
    data = tmp_path / "data"
    (data / "mlflow").mkdir(parents=True)
    shutil.copy(new_mlflow, data / "mlflow")
    config = tmp_path / "pointsman.toml"
    config.write_text(to_toml(Config(outcomes.catalog, {"default": demo.POLICY})), "utf-8")
    monkeypatch.setenv("POINTSMAN_DATA", "data")
    with Service(config, data) as service:
        monkeypatch.setenv("POINTSMAN_PORT", service.url.rpartition(":")[2])
        yield service


def drive(service: Service, outcomes: Any) -> None:
    """Some traffic, and wait until it is in the log."""
    for i in range(FEW):
        with service.client.call(text=outcomes.texts[i], task_type=outcomes.categories[i]) as call:
            call.quality = float(outcomes.quality[i, outcomes.catalog.ids.index(call.arm)])
            call.cost_usd = 0.001
    service.archived()


def run_command(words: list[str], service: Service, outcomes: Any) -> None:
    """One command of a document, in the service's folder."""
    while re.match(r"\w+=", words[0]):
        words = words[1:]
    program, *arguments = [HERE.sub(service.url.removeprefix("http://"), word) for word in words]
    if program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return
    if program == "curl":
        assert arguments[0] == "-s"
        done = subprocess.run(
            ["curl", "-sS", "--fail-with-body", *arguments[1:]], capture_output=True, check=False
        )
        assert done.returncode == 0, done
        return
    assert program == "pointsman"
    arguments = [
        path
        for word in arguments
        for path in (map(str, sorted(Path().glob(word))) if "*" in word else [word])
    ]
    if arguments[0] in ("gate", "evaluate", "replay"):
        drive(service, outcomes)
    if arguments[0] == "promote":  # no gate passes after so few rounds
        arguments += ["--override", "--reason", "the documents say so"]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code in ((0, 3, 4) if arguments[0] == "gate" else (0,)), done.output


RUN = [path for path in DOCUMENTS if blocks(str(path.relative_to(ROOT)), "sh", "python")]


@pytest.mark.parametrize("path", RUN, ids=lambda path: path.name)
def test_commands_and_python_run(path: Path, place: Service, outcomes: Any):
    """In the order in which the document shows them."""
    if not shutil.which("curl") and "curl" in path.read_text():
        pytest.skip("curl is not installed")
    names: dict[str, Any] = {
        "prompt": "Write a haiku",
        "my_models": {arm: lambda prompt: prompt for arm in outcomes.catalog.ids},
        "grade": lambda answer: 0.5,
        "client": place.client,
        "decision_id": "invoice-4711",
    }
    if path.name == "offline.md":
        drive(place, outcomes)
    for language, text in blocks(str(path.relative_to(ROOT)), "sh", "python"):
        if language == "sh":
            for words in commands(text):
                run_command(words, place, outcomes)
        else:
            exec(HERE.sub(place.url.removeprefix("http://"), text), names)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_configurations_are_accepted(path: Path):
    """Each one that shows policies, with the arms of its own or of the starter."""
    starter = (ROOT / "pointsman.toml").read_text("utf-8").split("[policies.default]")[0]
    for _, text in blocks(str(path.relative_to(ROOT)), "toml"):
        if "[policies." in text:
            parse(text if "[[arms]]" in text else starter + text, path.name)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path):
    """To files that exist and headings that they have."""
    text = BLOCK.sub("", path.read_text("utf-8"))
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", text):
        name, _, heading = target.partition("#")
        there = path.parent / name if name else path
        assert there.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", there.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}
            assert heading in slugs, target
