"""Text that a policy stores goes from its log into nothing that is made of the log: no version in
MLflow, no verdict, report or picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from pointsman.archiver import Window, archive_burst
from tests.canaries import KEPT, SECRETS, TEXT, found_in, hints, written
from tests.servers import drive, http_service, learn_all, main_of, settings_for
from tests.serving.challenging import config

ALL = {**TEXT, **SECRETS, "kept": KEPT}


@pytest.mark.slow
def test_nothing_that_is_made_of_a_log_tells_its_text(
    redis_url: str,
    mlflow_uri: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    """Train, judge, evaluate and replay; the pictures' words as they are drawn."""
    drawn: list[str] = []
    save = Figure.savefig

    def noting(figure: Figure, *given: object, **more: object) -> None:
        drawn.extend(str(text.get_text()) for text in figure.findobj(Text))
        save(figure, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", noting)
    settings = settings_for(
        redis_url, tmp_path, config("store_text = true\n", 'model = "nearest"\n')
    )
    with http_service(settings) as http:
        drive(http, 300)
        asked = {"query": {"text": KEPT}, "hints": hints()}
        for _ in range(20):
            made = http.post("/route", json=asked).json()
            http.post("/reward", json={"decision_id": made["decision_id"], "quality": 1.0})
    learn_all(redis_url)
    archive_burst(redis_url, settings.log_path(), {"default": Window(0)})
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    picture, log = str(tmp_path / "picture.png"), settings.log_path()
    assert main_of("train", log) == 0
    assert main_of("gate", "default") in (0, 3, 4)
    assert main_of("evaluate", log, "--target", "config", "--plot", picture) == 0
    assert main_of("replay", log, "--plot", picture) == 0
    told = "".join(capfd.readouterr()) + "\n".join(drawn)
    assert len(drawn) > 20
    assert not found_in(told.encode(), ALL)
    files = dict(written(tmp_path))
    assert any(name.startswith("mlflow/") for name in files)
    homes = {name.partition("/day=")[0] for name, data in files.items() if found_in(data, ALL)}
    assert homes == {"log/decisions/policy=default"}
