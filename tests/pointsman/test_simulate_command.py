"""`pointsman simulate`, in process and with a service over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pointsman.commands.simulate import command
from pointsman.trying import outcomes as folders
from pointsman.trying.simulate import Traffic, over_http
from pointsman_client import Client, PointsmanError
from policy.config.schema import Config, PolicyConfig
from policy.config.toml import to_toml
from serving.learning.learner import Learner
from serving.store.learning import LearnerStore
from tests.pointsman.sets import tiny
from tests.servers import http_service, settings_for

KEYS = {
    "mean_reward",
    "best_single",
    "best_per_category",
    "uniform",
    "captured",
    "captured_se",
    "rounds",
    "seconds",
}
POLICY = folders.config(tiny()).policies["default"]
FIXED = PolicyConfig(model="fixed", arm="big", floor=0.0, objective=POLICY.objective)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folders.save(tiny(10), tmp_path / "tiny")
    return tmp_path / "tiny"


def simulate(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_json_is_one_object_on_stdout(folder: Path):
    """With the keys that scripts rely on; everything else goes to stderr."""
    done = simulate(folder, "--json", "--shuffles", 2)
    figures = json.loads(done.stdout)
    assert figures.keys() >= KEYS
    assert figures["rounds"] == 40
    assert figures["best_single"] == pytest.approx(0.675)
    assert figures["captured_se"] > 0


def test_the_table_names_each_baseline(folder: Path):
    """For a person, with every arm's share."""
    done = simulate(folder, "--shuffles", 2)
    assert done.exit_code == 0
    for words in ("uniform choice", "best single arm: big", "captured", " ± ", "small"):
        assert words in done.stdout


def test_one_shuffle_has_no_standard_error(folder: Path):
    """Too little data is not zero."""
    figures = json.loads(simulate(folder, "--json", "--shuffles", 1).stdout)
    assert figures["captured_se"] is None


def test_what_it_writes_it_reads(folder: Path, tmp_path: Path):
    """`--write-config` writes what `--config` takes, with the same outcome."""
    file = tmp_path / "written.toml"
    first = json.loads(simulate(folder, "--json", "--write-config", file).stdout)
    again = json.loads(simulate(folder, "--json", "--config", file).stdout)
    assert first["mean_reward"] == again["mean_reward"]


def test_the_policy_comes_from_the_file_and_the_arms_from_the_folder(folder: Path, tmp_path: Path):
    """A fixed policy earns what its arm earns."""
    file = tmp_path / "fixed.toml"
    file.write_text(to_toml(Config(tiny().catalog, {"default": FIXED})))
    figures = json.loads(simulate(folder, "--json", "--config", file).stdout)
    assert figures["mean_reward"] == pytest.approx(0.675)


def test_a_plot_is_a_png(folder: Path, tmp_path: Path):
    """Running reward and shares, without a display."""
    done = simulate(folder, "--rounds", 12, "--plot", tmp_path / "plot.png")
    assert done.exit_code == 0
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--url", "http://127.0.0.1:1", "--shuffles", "2"],
        ["--concurrency", "2"],
        ["--url", "http://127.0.0.1:1", "--rate", "9"],
        ["--rate", "nan"],
        ["--shuffles", "0"],
        ["--loss", "1.5"],
        ["--delay", "-1"],
        ["--unknown"],
    ],
)
def test_wrong_usage_is_exit_code_2(folder: Path, arguments: list[str]):
    """As of every command."""
    assert simulate(folder, *arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--plot", "no/folder/plot.png"], "there is no folder"),
        (["--url", "http://127.0.0.1:1"], "No answer"),
        (["--url", "nonsense"], "nonsense"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(folder: Path, arguments: list[str], expected: str):
    """On stderr; nothing but figures is ever on stdout."""
    done = simulate(folder, *arguments)
    assert done.exit_code == 1
    assert expected in done.stderr
    assert done.stdout == ""


def test_a_configuration_that_is_not_there_is_named(folder: Path):
    """It raises what `pointsman` makes one line and exit code 1 of."""
    assert str(simulate(folder, "--config", "nowhere.toml").exception) == (
        "nowhere.toml: can't be read: No such file or directory; `pointsman init` writes one to "
        "start from"
    )


def test_a_policy_of_other_arms_is_refused(folder: Path, tmp_path: Path):
    """Its arms must be in the folder."""
    file = tmp_path / "other.toml"
    file.write_text(to_toml(Config(tiny().catalog, {"default": FIXED})).replace('"big"', '"huge"'))
    done = simulate(folder, "--config", file)
    assert done.exit_code == 1
    assert "tiny has no arm 'huge'" in done.stderr


# Over HTTP


@contextmanager
def service(
    redis_url: str, folder: Path, config: Config, *, learning: bool = True
) -> Iterator[str]:
    """A real service with a learner that publishes as fast as it can; its URL."""
    settings = settings_for(redis_url, folder, to_toml(config))
    stop = threading.Event()
    store = LearnerStore(redis_url, "default")
    learner = Learner(store, "default", publish_interval_s=0.001, checkpoint_interval_s=10.0)
    thread = threading.Thread(target=learner.run, args=(stop,))
    try:
        with http_service(settings) as client:
            if learning:
                thread.start()
            yield str(client.base_url)
    finally:
        stop.set()
        if thread.ident is not None:
            thread.join()
        store.close()


@pytest.mark.parametrize(("concurrency", "batch"), [(1, 1), (4, 1), (1, 16)])
def test_a_service_learns_from_the_same_traffic(
    redis_url: str, tmp_path: Path, concurrency: int, batch: int
):
    """Route, look up, reward, over HTTP: every reward arrives and the policy improves."""
    outcomes = tiny(100)
    with (
        service(redis_url, tmp_path, folders.config(outcomes)) as url,
        closing(Client(url)) as client,
    ):
        result = over_http(outcomes, POLICY, Traffic(), client, concurrency, batch=batch)
    with closing(LearnerStore(redis_url, "default")) as store:
        assert len(store.outcomes("0-0", 10_000, None)) == 400
    assert np.array_equal(np.sort(result.order[0]), np.arange(400))
    late = result.rewards[:, -150:].mean()
    assert late > result.figures()["uniform"]


def test_a_problem_in_a_batch_is_raised(redis_url: str, tmp_path: Path):
    """A round that the service refuses isn't passed over: here its text is too long."""
    outcomes = replace(tiny(), texts=("x" * 17_000_000, *tiny().texts[1:]))
    with (
        service(redis_url, tmp_path, folders.config(outcomes), learning=False) as url,
        closing(Client(url)) as client,
        pytest.raises(PointsmanError),
    ):
        over_http(outcomes, POLICY, Traffic(), client, batch=4)


def test_a_service_with_other_arms_is_refused(redis_url: str, tmp_path: Path):
    """Before the first decision, with the differences."""
    with service(redis_url, tmp_path, folders.config(tiny()), learning=False) as url:
        other = replace(tiny(), catalog=replace_arm(tiny().catalog.arms[0].id, "huge"))
        with closing(Client(url)) as client, pytest.raises(ValueError, match="it lacks huge"):
            over_http(other, POLICY, Traffic(), client)


def replace_arm(old: str, new: str) -> folders.Catalog:
    arms = tiny().catalog.arms
    return folders.Catalog(
        tuple(arm.model_copy(update={"id": new}) if arm.id == old else arm for arm in arms)
    )


def test_latency_is_reported_where_it_is_known(redis_url: str, tmp_path: Path):
    """A component that the set lacks is left out, not sent as null or 0."""
    latency_ms = np.full((4, 2), 250.0)
    latency_ms[0] = np.nan
    outcomes = replace(tiny(), latency_ms=latency_ms)
    with (
        service(redis_url, tmp_path, folders.config(outcomes), learning=False) as url,
        closing(Client(url)) as client,
    ):
        over_http(outcomes, POLICY, Traffic(), client)
    with closing(LearnerStore(redis_url, "default")) as store:
        seen = [fields.get(b"latency_ms") for _, fields in store.outcomes("0-0", 10, None)]
    assert sorted(float(value) for value in seen if value is not None) == [250.0] * 3


def test_the_command_drives_a_service(redis_url: str, folder: Path, tmp_path: Path):
    """`--url`: the same keys, one shuffle."""
    with service(redis_url, tmp_path, folders.config(tiny()), learning=False) as url:
        done = simulate(folder, "--url", url, "--json")
    figures = json.loads(done.stdout)
    assert figures["rounds"] == 40
    assert figures["captured_se"] is None


# On real outcomes


def test_a_folder_without_costs_and_latencies_is_driven(folder: Path):
    """Under quality alone, saying what is missing; an objective that weighs it is refused."""
    bare = replace(tiny(10), cost_usd=np.full((40, 2), np.nan))
    folders.save(bare, folder)
    done = simulate(folder, "--json", "--shuffles", 1)
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures["missing"] == ["latency_ms", "cost_usd"]
    assert (figures["best_single"], figures["best_per_category"]) == (0.75, 1.0)
    assert "2 arms; not known, and not counted: latency_ms, cost_usd" in simulate(folder).output
    config = folder / "pointsman.toml"
    config.write_text(to_toml(folders.config(tiny())))
    refused = simulate(folder, "--config", config)
    assert "the objective weighs cost, which tiny doesn't have" in str(refused.exception)
