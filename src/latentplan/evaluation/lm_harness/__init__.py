"""lm-evaluation-harness: latentplan's models and tasks in its registry (the extra `lm-eval`).

    import latentplan.evaluation.lm_harness.latentplan_lm                             # registers "latentplan"
    simple_evaluate(model="latentplan", model_args={"pretrained": "runs/NAME"}, tasks=["latentplan_gsm8k"],
                    task_manager=TaskManager(include_path=TASKS))

On the command line `latentplan lm_eval` does both and hands over to `lm_eval`.
"""

from pathlib import Path

TASKS = Path(__file__).parent / "tasks"
"""The folder of task files, for `include_path`."""
