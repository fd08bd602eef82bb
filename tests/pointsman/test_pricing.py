"""Price lists of others become arms: prices by day and by length, and what is left out and why."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pointsman.pricing import genai, source, traits
from policy.arms.arm import Arm, PriceTier
from tests.pointsman.lists import LITELLM, MODELS_DEV, written

ON = datetime.date(2026, 11, 29)
DATED = datetime.date(2026, 11, 20)


def arms(entries: source.PriceList) -> dict[str, Arm]:
    return {name: entry for name, entry in entries.entries.items() if isinstance(entry, Arm)}


def reasons(entries: source.PriceList) -> dict[str, str]:
    return {name: entry for name, entry in entries.entries.items() if isinstance(entry, str)}


def test_litellms_list(tmp_path: Path):
    """USD per token become USD per million, those above a length are tiers, those of other service
    tiers don't count, flags become capabilities, and each other model says why it is no arm."""
    found = source.read(written(tmp_path, LITELLM), ON, DATED)
    assert arms(found) == {
        "openai/gpt-long": Arm(
            id="openai/gpt-long",
            provider="openai",
            model="gpt-long",
            context_window_tokens=272_000,
            usd_per_mtok_in=0.125,
            usd_per_mtok_out=10.0,
            usd_per_mtok_cached_in=0.013,
            price_tiers=(
                PriceTier(
                    above_tokens=200_000,
                    usd_per_mtok_in=2.5,
                    usd_per_mtok_out=15.0,
                    usd_per_mtok_cached_in=0.013,
                ),
            ),
            prices_checked=DATED,
            prices_source="LiteLLM https://prices.example/openai",
            capabilities=("chat", "vision", "tools"),
            maker="openai",
        ),
        "dashscope/qwen-steps": Arm(
            id="dashscope/qwen-steps",
            provider="dashscope",
            model="qwen-steps",
            maker="qwen",
            usd_per_mtok_in=0.05,
            usd_per_mtok_out=0.4,
            price_tiers=(
                PriceTier(above_tokens=256_000, usd_per_mtok_in=0.25, usd_per_mtok_out=2.0),
            ),
            prices_checked=DATED,
            prices_source="LiteLLM",
        ),
        "openai/embed-1": Arm(
            id="openai/embed-1",
            provider="openai",
            model="embed-1",
            usd_per_mtok_in=0.02,
            usd_per_mtok_out=0.0,
            prices_checked=DATED,
            prices_source="LiteLLM",
            capabilities=("embeddings",),
        ),
        "cohere/rerank-1": Arm(
            id="cohere/rerank-1",
            provider="cohere",
            model="rerank-1",
            usd_per_mtok_in=0.0,
            usd_per_mtok_out=0.0,
            usd_per_request=0.002,
            prices_checked=DATED,
            prices_source="LiteLLM",
            capabilities=("rerank",),
        ),
    }
    assert reasons(found) == {
        "openai/gone": "retired by then",
        "openai/painter": "mode image_generation",
        "openai/odd": "unusable usd_per_mtok_in",
    }
    before = source.read(written(tmp_path, LITELLM), datetime.date(2026, 6, 29), DATED)
    assert "openai/gone" in arms(before)


def test_the_list_of_models_dev(tmp_path: Path):
    """The tiers that it has now come before its older single one; an id keeps what an arm's may
    hold, and the model its name."""
    found = source.read(written(tmp_path, MODELS_DEV), ON, DATED)
    by_name = arms(found)
    large = by_name["acme/acme/large@v2"]
    assert (large.id, large.model) == ("acme/acme/large-v2", "acme/large@v2")
    assert large.capabilities == ("chat", "tools", "reasoning", "vision")
    assert large.context_window_tokens == 1_000_000
    assert large.price_tiers == (
        PriceTier(
            above_tokens=272_000,
            usd_per_mtok_in=10,
            usd_per_mtok_out=37.5,
            usd_per_mtok_cached_in=0.5,
        ),
    )
    assert large.prices_source == "models.dev https://acme.example/models"
    small = by_name["acme/small"]
    assert (small.context_window_tokens, small.price_tiers[0].above_tokens) == (None, 200_000)
    assert by_name["acme/text-embed"].capabilities == ("embeddings",)
    assert reasons(found) == {
        "acme/old": "deprecated",
        "acme/voice": "neither chat nor embeddings",
        "acme/guard-8b": "neither chat nor embeddings",
        "acme/unpriced": "no price per token",
    }


@pytest.mark.parametrize(
    ("model", "made_by", "billions"),
    [
        ("meta-llama/Llama-3.3-70B-Instruct", "meta", 70.0),
        ("mistralai/Mixtral-8x7B-v0.1", "mistral", 56.0),
        ("qwen3-235b-a22b", "qwen", 235.0),
        ("deepseek-r1-distill-llama-70b", "deepseek", 70.0),
        ("gemma-3n-e4b-it", "google", None),
        ("accounts/fireworks/models/glm-5p3", "zai", None),
        ("accounts/fireworks/models/unheard-of", None, None),
        ("baidu/ERNIE-4.5-21B-A3B", "baidu", 21.0),
        ("gpt-4o-mini", "openai", None),
        ("claude-haiku-5-5", "anthropic", None),
        ("composer-2.5", None, None),
    ],
)
def test_a_name_tells_maker_and_size(model: str, made_by: str | None, billions: float | None):
    """Of well-known families, and of what is written as a number of parameters."""
    assert traits.maker(model) == made_by
    assert traits.parameters_b(model) == billions


@pytest.mark.parametrize(
    ("of_the_list", "odd", "name"),
    [
        (LITELLM, '"a": {"litellm_provider": "p", "mode": ["chat"]}', "p/a"),
        (
            LITELLM,
            '"a": {"litellm_provider": "p", "mode": "chat", "max_input_tokens": Infinity}',
            "p/a",
        ),
        (MODELS_DEV, '"p": {"models": {"a": "new"}}', "p/a"),
        (MODELS_DEV, '"p": {"models": {"a": {"cost": {"input": 1, "tiers": [5]}}}}', "p/a"),
        (MODELS_DEV, '"p": {"models": ["a"]}', "p"),
        (MODELS_DEV, '"p": "soon"', "p"),
    ],
)
def test_an_odd_entry_spoils_no_other(
    tmp_path: Path, of_the_list: dict[str, Any], odd: str, name: str
):
    """It is left out and named; all else is as it is without it."""
    path = Path(written(tmp_path, of_the_list))
    without = source.read(str(path), ON, DATED)
    path.write_text(f"{{{odd}, {path.read_text().strip()[1:]}")
    found = source.read(str(path), ON, DATED)
    assert arms(found) == arms(without)
    assert reasons(found) == {**reasons(without), name: "not written as such lists are"}


def test_the_package_is_as_old_as_the_last_price_that_holds():
    """Asked for a day before all that it tells of, that day counts."""
    day = datetime.date(2025, 6, 1)
    price = SimpleNamespace(constraint=SimpleNamespace(start_date=day))
    providers = [SimpleNamespace(models=[SimpleNamespace(prices=[price])])]
    assert genai.last_change(providers, ON) == day
    early = datetime.date(2020, 1, 1)
    assert genai.last_change(providers, early) == early


def test_patterns_choose(tmp_path: Path):
    """Of PROVIDER/MODEL, each adding some; one that matches nothing is a slip, which is told with
    the providers that there are."""
    found = source.read(written(tmp_path, LITELLM), ON, DATED)
    chosen = found.matching(["cohere/*", "*/qwen-*"])
    assert chosen.entries.keys() == {"cohere/rerank-1", "dashscope/qwen-steps"}
    assert found.matching([]) is found
    with pytest.raises(ValueError, match=r"matches 'grok/\*'; its providers are cohere, dashscope"):
        found.matching(["cohere/*", "grok/*"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no JSON"),
        ("[1]", "is neither LiteLLM's list of prices nor that of models.dev"),
    ],
)
def test_what_is_no_list_is_told(tmp_path: Path, text: str, says: str):
    """In one line that names the file."""
    path = tmp_path / "list.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"list.json: .*{says}"):
        source.read(str(path), ON)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server with LiteLLM's list at /list.json, changed on the 3rd of November."""
    body = Path(written(tmp_path, LITELLM)).read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/list.json" else 404)
            self.send_header("Last-Modified", "Tue, 03 Nov 2026 10:00:00 GMT")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_list_on_the_web(web: str, tmp_path: Path):
    """Its date is when it last changed; one that isn't there is one line."""
    found = source.read(f"{web}/list.json", ON)
    assert found.dated == datetime.date(2026, 11, 3)
    assert {arm.prices_checked for arm in found.arms} == {found.dated}
    assert arms(found).keys() == arms(source.read(written(tmp_path, LITELLM), ON)).keys()
    with pytest.raises(OSError, match=r"/other\.json.*404"):
        source.read(f"{web}/other.json", ON)
    with pytest.raises(OSError, match=r"^http://127\.0\.0\.1:1/"):
        source.read("http://127.0.0.1:1/", ON)


def test_without_the_package_it_is_told(monkeypatch: pytest.MonkeyPatch):
    """It is optional."""
    monkeypatch.setitem(__import__("sys").modules, "genai_prices.data", None)
    with pytest.raises(RuntimeError, match="pip install genai-prices"):
        source.read("genai-prices", ON)


def test_the_package_prices_calls_as_we_do():
    """Of each of its models, on two days, for a short and a long prompt: what the package computes
    by itself; of prices that differ by the hour, the most."""
    package = pytest.importorskip("genai_prices", reason="the extra `prices` isn't installed")
    from genai_prices.types import Usage  # noqa: PLC0415

    providers, _ = genai.installed()
    models = {f"{p.id}/{m.id}": (p, m) for p in providers for m in p.models}
    compared = dated = tiered = 0
    for on in (datetime.date(2026, 1, 15), ON):
        for name, arm in arms(source.read("genai-prices", on)).items():
            provider, model = models[name]
            hours = range(24) if isinstance(model.prices, list) else (12,)
            for tokens in (1_000, 900_000):
                usage = Usage(input_tokens=tokens, output_tokens=500)
                costs = [
                    model.calc_price(
                        usage,
                        provider,
                        genai_request_timestamp=datetime.datetime(
                            on.year, on.month, on.day, hour, 45, tzinfo=datetime.UTC
                        ),
                    ).total_price
                    for hour in hours
                ]
                assert arm.cost_usd(tokens, 500) == pytest.approx(float(max(costs))), name
                compared += 1
            dated += isinstance(model.prices, list)
            tiered += bool(arm.price_tiers)
    later = datetime.date(2027, 2, 1)  # what is announced by then
    changing = [arm for arm in source.read("genai-prices", ON).arms if arm.price_changes]
    then = {arm.id: arm for arm in source.read("genai-prices", later).arms}
    for arm in changing:
        for tokens in (1_000, 900_000):
            assert arm.at(later).cost_usd(tokens, 500) == then[arm.id].cost_usd(tokens, 500)
    assert changing
    assert package
    assert compared > 4_000
    assert dated > 100
    assert tiered > 100
