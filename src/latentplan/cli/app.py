"""`latentplan`: the command line."""

from __future__ import annotations

import typer

from latentplan.cli import (
    ask,
    attribute,
    compare,
    data_check,
    data_make,
    diagnose,
    estimate,
    evaluate,
    lm_eval,
    push,
    quickstart,
    report,
    select,
    serve,
    train,
    visualize,
)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
data = typer.Typer(no_args_is_help=True, help="Check data files and make data.")
make = typer.Typer(no_args_is_help=True, help="Make data.")
app.add_typer(data, name="data")
data.add_typer(make, name="make")

app.command()(quickstart.quickstart)
app.command(context_settings=train.PASS_THROUGH)(train.sft)
app.command(context_settings=train.PASS_THROUGH)(train.grpo)
app.command(context_settings=estimate.PASS_THROUGH)(estimate.estimate)
app.command()(evaluate.evaluate)
app.command()(diagnose.diagnose)
app.command()(attribute.attribute)
app.command()(select.select)
app.command()(compare.compare)
app.command("lm_eval", context_settings=lm_eval.PASS_THROUGH)(lm_eval.lm_eval)
app.command()(ask.ask)
app.command()(serve.serve)
app.command()(visualize.visualize)
app.command()(report.report)
app.command()(push.push)
data.command("check")(data_check.check)
make.command("minigsm")(data_make.minigsm)


def main() -> None:
    """The entry point."""
    app()


if __name__ == "__main__":
    main()
