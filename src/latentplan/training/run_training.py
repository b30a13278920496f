"""Whole runs: from settings to a finished run directory, going on from the last checkpoint if any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from latentplan.encoding.token_store import encode_problems
from latentplan.problems.decontamination import TrainedQuestions
from latentplan.problems.fingerprint import fingerprint
from latentplan.problems.problem import Problem
from latentplan.problems.training_set import DataArguments, common_modulus, load_training_problems
from latentplan.rewards import LABELLED_WEIGHTS, RewardSet
from latentplan.training.alerts import RL_RULES, SFT_RULES, Situation, Watcher
from latentplan.training.checkpoints import REHEARSAL, last_checkpoint, remove_unfinished
from latentplan.training.configs import GRPOConfig, ModelArguments, RunConfig, SFTConfig, flatten_recipe
from latentplan.training.consistency_check import check_training
from latentplan.training.distributed import full_state_dict, is_sharded, make_models_whole
from latentplan.training.grpo_trainer import GRPOTrainer
from latentplan.training.hub import base_model, check_repository, push_run, write_model_card
from latentplan.training.latent_gradients import get_latent_gradient
from latentplan.training.loggers import usable_trackers
from latentplan.training.model_init import choose_trained_weights, initialise_system, load_start
from latentplan.training.objectives import complete_settings
from latentplan.training.rl_diagnostics import STARTING_LATENTS, DecoderProbe, Drift, SignalProbe
from latentplan.training.run_directory import MetricsFile, RunDirectory, weights_fingerprint
from latentplan.training.saved_model import (
    Outputs,
    SavedModelError,
    SaveRehearsal,
    check_saved,
    tolerance_of,
    trained_outputs,
)
from latentplan.training.sft_trainer import SFTTrainer, make_curriculum
from latentplan.training.trainable_model import LatentModelForTraining, make_processor, save_finished
from latentplan.training.trainer import LatentTrainer
from latentplan.training.validation import load_validation

DRIFT_PROBLEMS = 64
"""Validation problems whose latents are followed."""


def train_sft(
    model: ModelArguments, data: DataArguments, config: SFTConfig, command: str = ""
) -> RunDirectory:
    """The supervised stage of one method, into `config.output_dir`.

    A run that was interrupted goes on from its last checkpoint and ends with the same weights; one that has
    finished is left as it is.

    Raises:
        RunConflictError: the directory holds a run with other settings.
        DataError, ValueError: data or settings are wrong; the message says what and where.
    """
    run = _open_run(model, data, config, command)
    if run.finished:
        return run
    problems, removed = load_training_problems(data)
    system, tokenizer = initialise_system(model, config, problems)
    processor = make_processor(tokenizer, system.reasoner)
    processor.refuses_unknown_words = True
    encoded, kept = encode_problems(problems, processor, data)
    _record_data(run, problems, kept, removed)
    _record_questions(run, kept, model.model_name_or_path)
    curriculum = make_curriculum(config, len(encoded))
    run.update(
        status="running",
        method=config.method,
        kind="sft",
        num_parameters=_count_parameters(system.reasoner),
        num_decoder_parameters=_count_parameters(system.step_decoder),
        curriculum={"stages": curriculum.stages, "starts": curriculum.starts},
    )
    validation = load_validation(config, data, processor, problems)
    parts = system.reasoner.config
    watcher = Watcher(run, SFT_RULES, Situation(parts.num_slots, parts.stop_head, curriculum.stages[-1]))
    callbacks = [MetricsFile(run), watcher]
    trainer = SFTTrainer(system, config, encoded, processor, tokenizer, curriculum, callbacks, validation)
    if not is_sharded(trainer.accelerator):
        check_training(system, processor, encoded, curriculum.stages, config.seed)
    return _train(run, trainer, system, tokenizer)


def train_grpo(
    model: ModelArguments,
    data: DataArguments,
    config: GRPOConfig,
    command: str = "",
) -> RunDirectory:
    """The RL stage on a trained model, into `config.output_dir`; resumes like `train_sft`.

    Raises:
        ValueError: no model is named, or a setting is wrong.
    """
    complete_settings(config)
    run = _open_run(model, data, config, command)
    if run.finished:
        return run
    if model.model_name_or_path is None:
        raise ValueError("RL starts from a trained model: set model_name_or_path to a run or a model folder")
    loaded = load_start(model)
    if loaded is None:
        raise ValueError(f"RL starts from a latentplan model, and {model.model_name_or_path} is none")
    if model.chat_template and not loaded.reasoner.config.chat_template:
        raise ValueError(
            f"chat_template: {model.model_name_or_path} was trained without the chat template, and RL keeps "
            "the layout of its start: set it for the supervised stage"
        )
    loaded.processor.refuses_unknown_words = True
    choose_trained_weights(model, loaded.reasoner, decoder=None)
    read, removed = load_training_problems(data)
    _, problems = encode_problems(read, loaded.processor, data)
    _record_data(run, read, problems, removed)
    _record_questions(run, problems, model.model_name_or_path)
    run.update(
        status="running",
        method=loaded.reasoner.config.method,
        kind="grpo",
        num_parameters=_count_parameters(loaded.reasoner),
    )
    if config.reward_funcs is None:
        rewards = RewardSet(LABELLED_WEIGHTS, settings=config.reward_settings)
    else:
        rewards = RewardSet(config.reward_funcs, config.reward_weights, config.reward_settings)
    validation = load_validation(config, data, loaded.processor, problems)
    parts, gradient = loaded.reasoner.config, get_latent_gradient(str(config.latent_gradient))
    scores_latents = gradient.latents_are_actions and loaded.reasoner.is_gaussian
    situation = Situation(parts.num_slots, parts.stop_head, scores_latents=scores_latents)
    watcher = Watcher(run, RL_RULES, situation)
    callbacks = [MetricsFile(run), watcher]
    trainer = GRPOTrainer(loaded, config, problems, rewards, callbacks, validation)
    if validation is not None:
        trainer.drift = Drift(run.path / STARTING_LATENTS, validation.problems[:DRIFT_PROBLEMS])
    trainer.add_callback(DecoderProbe(run, trainer, problems, watcher))
    trainer.add_callback(SignalProbe(run, trainer, problems, watcher))
    return _train(run, trainer, trainer.model, loaded.tokenizer)


def _open_run(model: ModelArguments, data: DataArguments, config: RunConfig, command: str) -> RunDirectory:
    if config.torch_threads:
        torch.set_num_threads(config.torch_threads)
    set_seed(config.seed)
    make_models_whole()
    settings = flatten_recipe((model, data, config))
    hub_token, config.hub_token = config.hub_token, None  # neither the Trainer nor a tracker needs it
    config.report_to = usable_trackers(config.report_to)
    config.run_name = config.run_name or Path(str(config.output_dir)).name
    if config.push_to_hub:
        check_repository(config.hub_model_id)
        config.push_to_hub = False  # the Trainer would push checkpoints; a run is pushed when it has finished
    # Otherwise the others might read a finished run that the first is about to overwrite.
    with config.main_process_first(local=False):
        run = RunDirectory(
            str(config.output_dir), settings, command, config.overwrite_output_dir, config.process_index == 0
        )
    run.hub_token = hub_token
    if not run.finished:
        run.pin(start=weights_fingerprint(model.model_name_or_path))
    return run


def _record_data(run: RunDirectory, read: Sequence[Problem], kept: Sequence[Problem], removed: int) -> None:
    content = fingerprint(kept)
    run.pin(data=content)
    run.update(
        seed=run.settings["seed"],
        data={
            "fingerprint": content,
            "num_problems": len(kept),
            "num_too_long": len(read) - len(kept),
            "num_removed_as_evaluation_questions": removed,
            "modulus": common_modulus(kept),
        },
    )


def _record_questions(run: RunDirectory, kept: Sequence[Problem], start: str | None) -> None:
    """Keeps which questions the run, and the run that it starts from, were trained on."""
    if run.writes:
        questions, earlier = TrainedQuestions.of(kept), TrainedQuestions.load(start)
        (questions if earlier is None else questions | earlier).save(run.path)


def _train(
    run: RunDirectory, trainer: LatentTrainer, system: LatentModelForTraining, tokenizer: Any
) -> RunDirectory:
    remove_unfinished(run.path)
    if trainer.args.check_saving:
        trainer.add_callback(SaveRehearsal(trainer, run.path / REHEARSAL))
    try:
        trainer.train(resume_from_checkpoint=last_checkpoint(run.path))
    except BaseException:
        run.leave()
        raise
    trained = trained_outputs(trainer) if trainer.args.check_saving else None
    weights = full_state_dict(trainer)
    if not trainer.is_world_process_zero():
        return run

    try:
        run.finish_model(lambda folder: _save(folder, system, tokenizer, weights, trained, trainer))
    except BaseException:
        run.leave()
        raise
    metrics = next(each for each in trainer.callback_handler.callbacks if isinstance(each, MetricsFile))
    run.update(
        seconds=round(metrics.seconds, 2),
        tokens_trained=trainer.state.num_input_tokens_seen,
        steps=trainer.state.global_step,
        flops=trainer.state.total_flos,
        device=str(trainer.args.device),
    )
    if trainer.args.load_best_model_at_end and trainer.state.best_global_step is not None:
        name = str(trainer.args.metric_for_best_model).removeprefix("eval_")
        run.update(best={"step": trainer.state.best_global_step, name: trainer.state.best_metric})
    run.finish()
    run.update(base_model=base_model(run.settings))
    write_model_card(run.path)
    if run.settings["push_to_hub"]:
        repository = check_repository(trainer.args.hub_model_id)
        push_run(run.path, repository, trainer.args.hub_private_repo, run.hub_token)
    return run


def _save(
    folder: Path,
    system: LatentModelForTraining,
    tokenizer: Any,
    weights: dict[str, torch.Tensor] | None,
    trained: Outputs | None,
    trainer: LatentTrainer,
) -> None:
    """Writes the finished model, which must compute what has been trained where that is known."""
    save_finished(system, folder, tokenizer, weights)
    if trained is not None:
        try:
            check_saved(folder, trained, tolerance_of(trainer))
        except SavedModelError as error:
            raise SavedModelError(
                f"{error}; what was saved stays in {folder}, and the checkpoints of the run stay beside it"
            ) from error


def _count_parameters(module: torch.nn.Module | None) -> int:
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())
