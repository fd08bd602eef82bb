"""The command `pointsman`. Loads a command's module when it is called, so that --help is fast."""

from __future__ import annotations

import importlib
import logging
import sys

import click

from serving.observing import logs

COMMANDS = {
    "init": "Write a pointsman.toml to start from.",
    "catalog": "Import arms from a price list, and check prices.",
    "up": "Run the whole service: serving, learner, archiver, embedded server.",
    "keys": "Make, show, replace and revoke the keys that requests come with.",
    "serve": "Run serving processes only, against a Redis of your own.",
    "learn": "Run the learner only, against a Redis of your own.",
    "archive": "Run the archiver only: move the streams to the log.",
    "simulate": "Drive a policy with a folder of full-information outcomes.",
    "demo": "Show the loop with pictures, on data made here.",
    "status": "Show a running policy, and what its challenger would have earned.",
    "frontier": "Show quality, latency and cost of arms and of other weights, per task type.",
    "train": "Fit a version on outcomes that are known, to start from there.",
    "evaluate": "Say what another policy would have earned on the log.",
    "replay": "Run a policy over the log as it learns.",
    "challenge": "Let a registered version learn in the champion's shadow.",
    "gate": "Ask whether a version may become champion, from the log.",
    "promote": "Make a version that has passed the gate the champion.",
    "rollback": "Make the champion before the last promotion champion again.",
    "watch": "Watch whether a new champion is worse than the one before.",
    "versions": "Show the versions of a policy: roles, verdicts, promotions.",
    "backup": "Put all that a running service holds into a folder.",
    "restore": "Set a service up from a backup.",
    "doctor": "Look for what is wrong with a service, or will be.",
    "import-log": "Make a log of what another decision service has logged.",
    "export-log": "Write a log in another service's format.",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"pointsman.commands.{name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pointsman")
def cli() -> None:
    """Pointsman learns which model arm should answer which query.

    Settings are environment variables POINTSMAN_*; `pointsman up --help` lists them.
    """


def main() -> None:
    """Run a command: exit code 0 done, 1 error (one line on stderr), 2 usage; others as it says."""
    try:
        code = cli(
            standalone_mode=False
        )  # what `ctx.exit` was given, else what the command returns
        sys.exit(code or 0)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        if logs.are_json():
            _say(error.format_message())
        else:
            error.show()
        sys.exit(error.exit_code)
    except (ValueError, LookupError, OSError, RuntimeError) as error:
        _say(str(error))
        sys.exit(1)
    except Exception as error:
        from serving.store.connecting.clients import FAILED  # noqa: PLC0415 - not for --help

        if not isinstance(error, FAILED):
            raise
        _say(f"Redis: {error}")
        sys.exit(1)


def _say(last: str) -> None:
    if logs.are_json():
        logging.getLogger("pointsman").critical("%s", last)
    else:
        click.echo(f"pointsman: {last}", err=True)
