"""`pointsman catalog`: arms from a list into a file that runs, and prices that are looked after."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pointsman.cli import cli
from policy.config.toml import parse
from tests.pointsman.lists import LITELLM, written
from tests.servers import http_service, settings_for

MINE = """\
# my arms
[[arms]]
id = "long"                            # how decisions name it
provider = "openai"
model = "gpt-long"
context_window_tokens = 100000         # less than it could
usd_per_mtok_in = 0.1                  # dear? # or not
usd_per_mtok_out = 9
usd_per_mtok_cache_write = 0.7
prices_checked = 2026-01-31            # long ago
prices_source = "page #4"              # theirs
price_changes = [{ on = 2027-03-01, usd_per_mtok_in = 1, usd_per_mtok_out = 1 }] # announced
capabilities = ["chat"]

[[arms]]
id = "own"                             # no list has it
provider = "local"
model = "own-7b"
usd_per_mtok_in = 0.01
usd_per_mtok_out = 0.02
prices_checked = 2026-11-15

[policies.default]
model = "uniform"                      # for now
"""
UPDATED = (
    MINE.replace(
        "usd_per_mtok_in = 0.1                  # dear",
        "usd_per_mtok_in = 0.125                # dear",
    )
    .replace(
        "usd_per_mtok_out = 9\n",
        "usd_per_mtok_out = 10.0\nusd_per_mtok_cached_in = 0.013\n"
        "price_tiers = [{ above_tokens = 200000, usd_per_mtok_in = 2.5, usd_per_mtok_out = 15.0, "
        "usd_per_mtok_cached_in = 0.013 }]\n",
    )
    .replace("prices_checked = 2026-01-31 ", "prices_checked = 2026-11-20 ")
    .replace(
        'prices_source = "page #4"              # theirs',
        'prices_source = "LiteLLM https://prices.example/openai" # theirs',
    )
    .replace(
        "price_changes = [{ on = 2027-03-01, usd_per_mtok_in = 1, usd_per_mtok_out = 1 }] #",
        f"{'#':>82}",
    )
)


@pytest.fixture
def prices(tmp_path: Path) -> str:
    return written(tmp_path, LITELLM)


def catalog(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["catalog", *map(str, arguments)])


def imported(prices: str, *arguments: str | Path) -> Result:
    return catalog("import", prices, "--dated", "2026-11-20", "--on", "2026-11-29", *arguments)


def test_a_list_becomes_a_configuration(prices: str, tmp_path: Path):
    """Printed, or in a new file; what is left out is told beside it. As JSON it is counted."""
    to = tmp_path / "arms.toml"
    printed = imported(prices)
    done = imported(prices, "--to", to)
    assert printed.stdout == to.read_text()
    assert len(parse(printed.stdout, "it").arms) == 4
    assert done.stdout == ""
    assert "of 2026-11-20: 4 new arms, 0 with other prices, 0 as before; " in done.stderr
    assert "1 left out: mode image_generation" in done.stderr
    told = json.loads(imported(prices, "--json", "--to", to, "--only", "openai/*").stdout)
    assert (told["new"], told["changed"], told["unchanged"]) == (0, 0, 2)
    assert told["left_out"]["retired by then"] == 1


def test_a_file_of_ones_own_keeps_all_but_prices(prices: str, tmp_path: Path):
    """An arm is found by provider and model. Comments stay where they stood, and so do prices that
    the list doesn't say; what it announces no more goes. The same list again changes nothing."""
    to = tmp_path / "mine.toml"
    to.write_text(MINE)
    done = imported(prices, "--to", to, "--known")
    assert done.stderr.endswith("0 new arms, 1 with other prices, 0 as before\n")
    assert to.read_text() == UPDATED
    done = imported(prices, "--to", to)
    assert "3 new arms, 0 with other prices, 1 as before" in done.stderr
    assert to.read_text().startswith(UPDATED)
    found = parse(to.read_text(), "mine.toml")
    assert found.arms.ids[:2] == ("long", "own")
    assert len(found.arms) == 5
    assert found.policies["default"].model == "uniform"
    once = to.read_text()
    imported(prices, "--to", to)
    assert to.read_text() == once


def test_what_was_checked_later_than_the_list_stays(prices: str, tmp_path: Path):
    """An operator who has looked knows better."""
    to = tmp_path / "mine.toml"
    to.write_text(MINE.replace("2026-01-31", "2026-11-21"))
    before = to.read_text()
    assert "0 with other prices, 1 as before" in imported(prices, "--to", to, "--known").stderr
    assert to.read_text() == before


def test_a_price_that_cannot_be_replaced_is_told(prices: str, tmp_path: Path):
    """The file stays as it is."""
    tier = "[[arms.price_tiers]]\nabove_tokens = 5\nusd_per_mtok_in = 1\nusd_per_mtok_out = 1\n\n"
    to = tmp_path / "mine.toml"
    to.write_text(MINE.replace('[[arms]]\nid = "own"', f'{tier}[[arms]]\nid = "own"'))
    before = to.read_text()
    done = imported(prices, "--to", to)
    assert isinstance(done.exception, ValueError)
    assert "doesn't stand on a line of its own: change it by hand" in str(done.exception)
    assert to.read_text() == before


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--only", "nobody/*"], 1, "matches 'nobody/*'"),
        (["--only", "openai/gone"], 1, "no arm can be made of that: retired by then"),
        (["--known"], 2, "--known needs --to"),
    ],
)
def test_what_makes_no_arm_is_told(prices: str, arguments: list[str], code: int, says: str):
    """One line."""
    done = imported(prices, *arguments)
    assert done.exit_code == code
    assert says in (done.stderr or str(done.exception)) + str(done.exception)


def checked(tmp_path: Path, text: str, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    done = catalog("check", "--config", file, "--on", "2026-11-29", "--json", *arguments)
    return done.exit_code, json.loads(done.stdout)["findings"]


def test_check_names_what_is_old_or_never_said(tmp_path: Path):
    """By the calendar alone; prices of a day ago are none of these."""
    text = MINE.replace("prices_checked = 2026-11-15\n", "")
    assert checked(tmp_path, text) == (
        3,
        [
            {"arm": "long", "what": "its prices were checked 302 days ago, on 2026-01-31"},
            {"arm": "own", "what": "nobody has said when its prices were checked (prices_checked)"},
        ],
    )
    fresh = MINE.replace("2026-01-31", "2026-11-28")
    assert checked(tmp_path, fresh) == (0, [])
    assert checked(tmp_path, fresh, "--max-age", "0")[0] == 3


def test_check_names_what_a_list_says_otherwise(prices: str, tmp_path: Path):
    """Prices that differ and that are missing; of providers that the list hasn't, nothing."""
    text = MINE + (
        '\n[[arms]]\nid = "new"\nprovider = "openai"\nmodel = "gpt-none"\nusd_per_mtok_in = 1\n'
        "usd_per_mtok_out = 1\nprices_checked = 2026-11-15\n"
    )
    code, found = checked(tmp_path, text, prices, "--dated", "2026-11-20", "--max-age", "400")
    assert code == 3
    assert found == [
        {"arm": "long", "what": "usd_per_mtok_in is 0.1, the list has 0.125"},
        {"arm": "long", "what": "usd_per_mtok_out is 9, the list has 10"},
        {"arm": "long", "what": "usd_per_mtok_cached_in is missing, the list has 0.013"},
        {"arm": "long", "what": "the list has other price_tiers"},
        {"arm": "long", "what": "the list has other price_changes: none"},
        {"arm": "new", "what": "the list has no openai/gpt-none"},
    ]


def test_hundreds_of_arms_run(redis_url: str, tmp_path: Path):
    """From one command to a service: /arms, a route and a batch of them, each in a short time."""
    model = {"mode": "chat", "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    many = {f"m-{i}": {**model, "litellm_provider": f"p{i % 7}"} for i in range(300)}
    to = tmp_path / "arms.toml"
    assert imported(written(tmp_path, many), "--to", to).exit_code == 0
    with http_service(settings_for(redis_url, tmp_path, to.read_text())) as http:
        start = time.perf_counter()
        assert len(http.get("/arms").json()["arms"]) == 300
        query = {"query": {"text": "2 + 2?"}}
        decision = http.post("/route", json=query).json()
        assert len(decision["alternatives"]) == 299
        results = http.post("/route/batch", json={"requests": [query] * 20}).json()["results"]
        assert all(len(result["alternatives"]) == 299 for result in results)
        assert time.perf_counter() - start < 10.0
