"""What commands share: settings, options, the policy and store they act on, logging, progress."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from policy.config.schema import Config, PolicyConfig
from serving.observing import logs
from serving.processes.config_file import ConfigFile
from serving.processes.embedded import running_url
from serving.settings import Settings
from serving.store.keys import StoreUnavailable
from serving.store.operations import OperatorStore


def read(**given: object) -> Settings:
    """Settings from the environment; options of the command line come first."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        faults = [
            f"POINTSMAN_{str(fault['loc'][0]).upper()}: {fault['msg']}, got {fault['input']!r}"
            for fault in error.errors()
        ]
        raise click.ClickException("; ".join(faults)) from None


supervised = click.option(
    "--supervised", is_flag=True, hidden=True, help="`up` has looked at Redis, and waits for it."
)


only = click.option(
    "--policy",
    "only",
    multiple=True,
    metavar="NAME",
    help="This policy alone, or these: several processes can share them. [all]",
)


def among(policies: Mapping[str, PolicyConfig], only: Collection[str]) -> dict[str, PolicyConfig]:
    """Those that are asked for, or all."""
    return {name: of for name, of in policies.items() if not only or name in only}


def known(policies: Mapping[str, Any], only: Collection[str]) -> None:
    """UsageError, where one that is asked for isn't there."""
    for name in only:
        if name not in policies:
            raise click.UsageError(f"no policy {name!r} (known: {', '.join(sorted(policies))})")


def served(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of how a service is reached."""
    file = click.Path(dir_okay=False, path_type=Path)
    options = [
        click.option(
            "--open", is_flag=True, default=None, help="Serve anybody, while there are no keys."
        ),
        click.option("--ssl-certfile", type=file, help="Serve TLS, with this certificate (PEM)."),
        click.option("--ssl-keyfile", type=file, help="Its private key, if not in the same file."),
        click.option("--workers", type=int, help="Serving processes."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def url(chosen: Settings) -> str:
    """Where a service with these settings answers."""
    scheme = "http" if chosen.ssl_certfile is None else "https"
    host = f"[{chosen.host}]" if ":" in chosen.host else chosen.host
    return f"{scheme}://{host}:{chosen.port}"


class Finite(click.FloatRange):
    """A range that holds no NaN, which every comparison would let through, and no infinity."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"expected a number, got {value!r}", param, ctx)
        return number


class Time(click.ParamType[int]):
    """A date or time as ISO 8601 has it, UTC unless it says otherwise, or ms since 1970 -> ms."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if value.isascii() and value.isdecimal() and len(value) > 8:  # 20260131 is a date
            return int(value)
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"expected a time such as 2026-11-21 or 2026-11-21T08:30, got {value!r}")
        return round(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1_000)


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def help_text() -> str:
    r"""The environment variables, for --help. \b keeps click from wrapping them."""
    lines = [
        f"  POINTSMAN_{name.upper()}  {field.description} [{field.default}]"
        for name, field in Settings.model_fields.items()
    ]
    return "\b\nSettings (environment variables):\n" + "\n".join(lines)


def begin(process: str, **given: object) -> Settings:
    """The settings of a process that runs until it is stopped, and logs as they say."""
    try:
        chosen = read(**given)
    except click.ClickException:
        form = os.environ.get("POINTSMAN_LOG_FORMAT")
        logs.begin(process, form if form in ("json", "text") else None)
        raise
    logs.begin(process, chosen.log_format)
    return chosen


def policy_of(chosen: Settings, name: str) -> tuple[Config, PolicyConfig]:
    """The configuration file, and the policy of this name in it."""
    config = ConfigFile(chosen.config).read()
    if name not in config.policies:
        known = ", ".join(sorted(config.policies))
        raise click.ClickException(f"{chosen.config}: there is no policy {name!r} (known: {known})")
    return config, config.policies[name]


@contextmanager
def operating(chosen: Settings, policy: str) -> Iterator[OperatorStore]:
    """The store of a service that runs with these settings, for an operator."""
    url = chosen.redis_url or running_url(chosen.data)
    with closing(OperatorStore(url, policy)) as store:
        try:
            yield store
        except StoreUnavailable as error:
            raise click.ClickException(str(error)) from error


def challenger_of(store: OperatorStore) -> str:
    """The version that an operator means who names none."""
    challenger = store.state().get("challenger")
    if not challenger:
        raise click.ClickException(
            "the policy has no challenger: name a version (`pointsman versions` lists them)"
        )
    return challenger


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@contextmanager
def progress(length: int) -> Iterator[Callable[[int], object]]:
    """A progress bar on stderr, where a person looks at it."""
    if not sys.stderr.isatty():
        yield lambda rounds: None
        return
    steps = max(length // 200, 1)
    with click.progressbar(length=length, file=sys.stderr, update_min_steps=steps) as bar:
        yield bar.update
