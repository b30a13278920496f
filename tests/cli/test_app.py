"""The command line as a whole: help, the version and mistakes, without importing what commands need."""

import importlib
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from latentplan import __version__
from latentplan.cli.app import COMMANDS, app

RUNNER = CliRunner()
HEAVY = ("torch", "transformers", "numpy", "latentplan.training")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["evalute"], []])
def test_help_version_and_mistakes_import_no_pytorch(arguments):
    program = (
        "import sys; from latentplan.cli.app import main\n"
        f"sys.argv = ['latentplan', *{arguments!r}]\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print('imported:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("imported: []\n"), done.stdout + done.stderr


def test_the_version():
    assert RUNNER.invoke(app, ["--version"]).output == f"latentplan {__version__}\n"


def test_help_lists_every_command_with_its_first_line():
    shown = " ".join(RUNNER.invoke(app, ["--help"]).output.replace("│", " ").split())
    for name, module in COMMANDS.items():
        function = getattr(importlib.import_module(f"latentplan.cli.{module}"), name)
        assert f"{name} {' '.join(function.__doc__.split())}" in shown


@pytest.mark.parametrize(
    "name", [*sorted(COMMANDS.keys() - {"lm_eval"}), "data"]
)  # lm_eval shows lm-eval's own
def test_every_command_shows_its_own_help(name):
    done = RUNNER.invoke(app, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert f"Usage: latentplan {name}" in done.output


def test_a_mistyped_command_is_told_what_was_meant():
    done = RUNNER.invoke(app, ["visualise"])
    assert done.exit_code == 2
    assert "Did you mean 'visualize'?" in done.output
