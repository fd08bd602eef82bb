"""What the commands that run processes share: settings, their help text, logging."""

from __future__ import annotations

import logging

import click
from pydantic import ValidationError

from serving.settings import Settings


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


def help_text() -> str:
    r"""The environment variables, for --help. \b keeps click from wrapping them."""
    lines = [
        f"  POINTSMAN_{name.upper()}  {field.description} [{field.default}]"
        for name, field in Settings.model_fields.items()
    ]
    return "\b\nSettings (environment variables):\n" + "\n".join(lines)


def log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
