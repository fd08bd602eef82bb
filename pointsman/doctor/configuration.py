"""The configuration file, the prices in it, and the environment variables."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

from pointsman.doctor.finding import Finding, Told, named, shortened
from pointsman.pricing.checking import findings
from policy.arms.arm import Arm
from policy.config.problems import ConfigError
from policy.config.schema import Config
from serving.processes.config_file import ConfigFile
from serving.settings import Settings

MAX_AGE_DAYS = 90  # of a price, as `pointsman catalog check` has it
ELSEWHERE = ("POINTSMAN_TEST_",)  # names that begin so are no settings of a service
OF_CALLERS = {"POINTSMAN_API_KEY", "POINTSMAN_URL"}  # which a client reads


def read(chosen: Settings) -> tuple[Config | None, list[Finding]]:
    """The file, None where it is wrong, and what is to be said of it."""
    fix = f"correct {chosen.config}: a running service keeps the old one until then"
    try:
        config = ConfigFile(chosen.config).read()
    except ConfigError as error:
        return None, [Finding("configuration", "fault", fault, fix) for fault in error.faults]
    size = f"{len(config.arms.arms)} arms, {len(config.policies)} policies"
    return config, [Finding("configuration", "ok", f"{chosen.config}: {size}")]


def environment(variables: Mapping[str, str]) -> list[Finding]:
    """Variables that look like settings and are none."""
    known = OF_CALLERS | {f"POINTSMAN_{name.upper()}" for name in Settings.model_fields}
    wrong = sorted(
        name
        for name in variables
        if name.startswith("POINTSMAN_") and name not in known and not name.startswith(ELSEWHERE)
    )
    told: list[Told] = [
        ("warning", f"{name} is set and is no setting", "see `pointsman up --help` for their names")
        for name in wrong
    ]
    return named("environment", told, "every POINTSMAN_ variable is a setting")


def prices(arms: Sequence[Arm], today: datetime.date) -> list[Finding]:
    """Those whose date or source is missing, or whose date is old."""
    sourceless = [arm.id for arm in arms if not arm.prices_source]
    undated = [arm.id for arm in arms if arm.prices_checked is None]
    found = findings(arms, today, MAX_AGE_DAYS)
    old = [finding.arm for finding in found if finding.arm not in undated]
    some: list[tuple[list[str], str, str]] = [
        (undated, "nobody has said when prices were checked", "check them, and set prices_checked"),
        (old, f"prices were checked over {MAX_AGE_DAYS} days ago", "`pointsman catalog check`"),
        (sourceless, "nobody has said where prices are from", "set prices_source"),
    ]
    told: list[Told] = [
        ("warning", f"{what}: {shortened(names)}", do) for names, what, do in some if names
    ]
    return named("prices", told, f"{len(arms)} arms have prices of the last {MAX_AGE_DAYS} days")
