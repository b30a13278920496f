"""Old names of modules, which work for one version more, with a notice."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_RENAMED = """
cli.app: cli.deferred
cli.data: cli.data_check cli.data_make
cli.load_or_exit: cli.opening
cli.subprocess_entry: cli.child
cli.train: cli.launch
common.files: problems.files
common.plugins: problems.importing
encoding.chat_template: encoding.chat
encoding.processor: encoding.encoder
encoding.token_store: encoding.store
encoding.tokenizers: encoding.special_tokens
evaluation.best_of_n: evaluation.selection.formulas evaluation.selection.measure
evaluation.collect_latents: evaluation.latent_rows
evaluation.diagnosis.answer_source: evaluation.diagnosis.reading
evaluation.diagnosis.evaluated_model: evaluation.diagnosis.subject
evaluation.diagnosis.faithfulness: evaluation.diagnosis.edits
evaluation.diagnosis.findings: evaluation.diagnosis.figures evaluation.diagnosis.thresholds
evaluation.diagnosis.plan_coverage: evaluation.diagnosis.plans
evaluation.diagnosis.posterior_collapse: evaluation.diagnosis.collapse
evaluation.diagnosis.reward_variance: evaluation.diagnosis.variance
evaluation.diagnosis.stop_calibration: evaluation.diagnosis.stops
evaluation.latent_metrics: evaluation.diagnostics evaluation.latent_use evaluation.reconstruction
evaluation.latent_table: evaluation.clustering
evaluation.lm_harness.latentplan_lm: evaluation.lm_harness.model evaluation.lm_harness.problems
evaluation.metrics: evaluation.predictions evaluation.scores
evaluation.result_tables: evaluation.diagnosis.table evaluation.selection.table evaluation.table
evaluation.results: evaluation.saved_json evaluation.selection.results
evaluation.statistics: evaluation.paired
experiments: cli.comparison
experiments.budget: cli.comparison.budget
experiments.comparison_plan: cli.comparison.equalise cli.comparison.plan
experiments.comparison_request: cli.comparison.asked
experiments.comparison_results: report.comparison.columns report.comparison.measures report.comparison.pairs
experiments.comparison_runs: cli.comparison.runs
experiments.comparison_spec: cli.comparison.entries cli.comparison.experiments
experiments.comparison_tables: report.comparison report.comparison.build report.comparison.notes
    report.comparison.tables
experiments.jobs: cli.jobs
experiments.lr_sweep: cli.comparison.sweep
experiments.recipes: cli.recipe cli.scale
methods.base: methods.registry
methods.codi: modeling.layer_states
methods.colar: encoding.compression
methods.losses: methods.objectives
modeling.backbone_check: modeling.probe
modeling.counter_rng: modeling.noise
modeling.decoding_state: modeling.context
modeling.efficiency.batch_compaction: modeling.active_rows modeling.gathering
modeling.efficiency.chunked_logits: modeling.vocabulary
modeling.efficiency.cuda_graphs: modeling.captured
modeling.efficiency.gradient_checkpointing: modeling.recompute
modeling.efficiency.kv_cache: modeling.growing_cache modeling.windows
modeling.efficiency.linear_layers: modeling.linear_maps modeling.weight_gradients
modeling.efficiency.matmul: modeling.products
modeling.efficiency.prefill: modeling.prefill
modeling.folders.adapter_folders: modeling.adapter_folders
modeling.folders.config_rules: modeling.config_rules
modeling.folders.damage: modeling.damage
modeling.folders.model_check: modeling.soundness
modeling.folders.remote_code: modeling.named_code
modeling.folders.stored_weights: modeling.stored_weights
modeling.latent_heads: modeling.gaussians modeling.heads
modeling.lora: modeling.adapters
modeling.sampling: rollout.sampling
modeling.thinking: modeling.latents
problems.counterfactuals: problems.minigsm.counterfactuals
problems.decontamination: problems.overlap problems.trained_questions
problems.disk_cache: problems.cache
problems.minigsm.expression_graph: problems.minigsm.graph
problems.minigsm.number_kinds: problems.minigsm.numbers
problems.minigsm.presets: problems.minigsm.config
problems.minigsm.solution_chains: problems.minigsm.plans
problems.minigsm.story_template: problems.minigsm.family
problems.minigsm.word_problems: problems.minigsm.words
problems.problem_store: problems.arrays problems.store
problems.reading: problems.readers
problems.sources: cli.own_problems problems.evaluation_sets problems.hub
problems.training_set: training.data training.reading
report.figures: report.pictures
report.figures.accuracy_tokens: report.comparison.plot report.selection_plot
report.figures.curves: report.pictures.chains report.pictures.rewards
report.figures.draw: report.pictures.draw report.pictures.tables
report.figures.embed: report.pictures.embed
report.figures.latent_maps: report.pictures.labels report.pictures.latents report.pictures.projection
report.figures.plan_drawings: report.pictures.plans
report.figures.style: report.plot_style
report.page: report.build report.html report.setup
report.run_reader: report.compare report.evaluations report.runs
report.wording: report.formats report.words
rewards.answer_rewards: rewards.accuracy rewards.format rewards.length
rewards.plan_graph: report.pictures.plan_graph rewards.steps
rewards.plan_report: serving.inspector.reading
rewards.plan_rewards: rewards.coherence rewards.plan
rewards.reward_set: rewards.combine rewards.registry
rewards.sentence_coherence: rewards.carrying rewards.natural
rewards.sentence_parsing: rewards.things
rollout.continuous_batching: rollout.rolling
rollout.decoded_text: serving.inspector.decoded
rollout.decoding_accuracy: rollout.reconstruction
rollout.edits: serving.inspector.edits
rollout.engine: rollout.budget
rollout.interventions: evaluation.interventions
rollout.logprobs: rollout.log_probs
rollout.plan_decoding: rollout.plan_tokens rollout.plans
rollout.solve: evaluation.rollouts
rollout.trace: serving.inspector.walk
rollout.variance_split: rollout.variance
serving.endpoints: serving.clients serving.completions
serving.inspector.handlers: serving.inspector.bodies serving.inspector.desk
serving.inspector.inspected_model: serving.inspector.subjects
serving.inspector.views: serving.inspector.asking serving.inspector.intervening serving.inspector.sampling
serving.model_worker: serving.jobs serving.served serving.written
serving.prometheus: serving.metrics
serving.prompts: serving.questions
serving.protocol: serving.errors serving.requests
serving.responses: serving.answers
serving.server: serving.access serving.app
training.alerts: training.health training.watching
training.checkpoints: training.optimizer_state
training.configs: training.arguments training.rl_settings
training.distributed: training.sharding
training.grpo_trainer: training.grpo
training.hub: training.model_card
training.latent_gradients: training.estimators
training.loggers: training.progress training.trackers
training.memory.backbone_shapes: modeling.shapes
training.memory.dry_run: training.dry_run training.ledger
training.memory.memory_estimate: training.footprint
training.model_init: training.initialise
training.nonfinite: training.gradients training.guard training.nonfinite_report
training.objectives.grpo: training.policy_loss
training.objectives.latent_value: training.latent_rl
training.objectives.reference_likelihood: training.hybrid training.likelihood
training.parameter_groups: training.learning_rates
training.rl_diagnostics: training.agreement training.drift training.instruments training.probes
training.rl_losses: training.advantages training.divergence training.spread
training.rollout_batch: training.known_answers training.rollouts
training.run_training: training.runs
training.samplers: training.plan training.question_order
training.sft_trainer: training.sft
training.trainable_model: methods.system
training.trainer: training.evaluating
"""
"""A module, and the names that it or its parts had."""
_MOVED = {
    "encoding.encoder": {"Encoder": "encoding.processor:ProblemProcessor"},
    "methods.objectives": {
        "kl_total": "methods.losses:kl_loss_sum",
        "row_count": "methods.losses:num_rows",
        "step_decoder_count": "methods.losses:num_rows_with_step",
        "step_decoder_total": "methods.losses:step_decoder_loss_sum",
        "stop_total": "methods.losses:stop_loss_sum",
        "text_count": "methods.losses:num_labelled_tokens",
        "text_total": "methods.losses:text_loss_sum",
        "used_slot_count": "methods.losses:num_used_slots",
    },
    "evaluation.diagnosis.subject": {
        "Subject": "evaluation.diagnosis.evaluated_model:EvaluatedModel",
    },
    "evaluation.interventions": {"think_on": "rollout.interventions:regenerate"},
    "methods.system": {
        "LatentSystem": "training.trainable_model:LatentModelForTraining",
        "make_encoder": "training.trainable_model:make_processor",
    },
    "modeling.active_rows": {"ActiveRows": "modeling.efficiency.batch_compaction:UnfinishedRows"},
    "modeling.captured": {"captured": "modeling.efficiency.cuda_graphs:with_cuda_graphs"},
    "modeling.context": {"Context": "modeling.decoding_state:DecodingState"},
    "modeling.loading": {"is_latent_checkpoint": "common.run_files:is_latent_checkpoint"},
    "modeling.gathering": {"gathered": "modeling.efficiency.batch_compaction:merge_states"},
    "modeling.products": {
        "add_product": "modeling.efficiency.matmul:add_matmul",
        "by_onednn": "modeling.efficiency.matmul:uses_onednn",
        "product": "modeling.efficiency.matmul:matmul",
    },
    "modeling.recompute": {
        "recompute_layers": "modeling.efficiency.gradient_checkpointing:checkpoint_layers",
        "recomputes": "modeling.efficiency.gradient_checkpointing:is_checkpointed",
    },
    "modeling.weight_gradients": {
        "is_spread": "modeling.efficiency.linear_layers:has_sharded_weights",
        "recomputable": "modeling.efficiency.linear_layers:checkpointable",
    },
    "modeling.vocabulary": {
        "at_places": "modeling.efficiency.chunked_logits:at_indices",
        "from_places": "modeling.efficiency.chunked_logits:from_indices",
        "places": "modeling.efficiency.chunked_logits:mask_indices",
    },
    "problems.minigsm.numbers": {"Dials": "problems.minigsm.number_kinds:NumberSettings"},
    "problems.minigsm.words": {"WordWorld": "problems.minigsm.word_problems:WordDomain"},
    "problems.minigsm.family": {"Family": "problems.minigsm.story_template:StoryTemplate"},
    "problems.readers": {
        "ColumnMap": "problems.formats.own_data:ColumnMap",
        "mapped_reader": "problems.formats.own_data:mapped_reader",
    },
    "rewards.carrying": {
        "Asked": "rewards.sentence_parsing:QuestionFacts",
        "asked_by": "rewards.sentence_parsing:facts_of_question",
    },
    "rewards.plan": {
        "CONSTANTS": "rewards.plan_graph:CONSTANTS",
        "numbers_of_question": "rewards.plan_graph:numbers_of_question",
    },
    "rewards.steps": {"of_equations": "rewards.plan_rewards:of_equations"},
    "report.formats": {
        "duration": "common.text_table:duration",
        "short": "common.text_table:short",
    },
    "rollout.rolling": {"RollingBatch": "rollout.continuous_batching:ContinuousBatch"},
    "serving.inspector.desk": {"Desk": "serving.inspector.handlers:Handlers"},
    "serving.inspector.subjects": {
        "Subject": "serving.inspector.inspected_model:InspectedModel",
        "subject_of": "serving.inspector.inspected_model:inspected_model",
    },
    "serving.served": {"ServedModel": "serving.model_worker:ModelWorker"},
    "serving.written": {"Written": "serving.model_worker:Detokenizer"},
    "serving.inspector.walk": {"walk": "rollout.trace:trace"},
    "training.advantages": {
        "batch_deviation": "training.rl_losses:batch_std",
        "group_deviation": "training.rl_losses:group_std",
        "mean_of_the_others": "training.rl_losses:leave_one_out_mean",
        "no_deviation": "training.rl_losses:no_scaling",
    },
    "training.arguments": {"DataArguments": "problems.training_set:DataArguments"},
    "training.progress": {"duration": "common.text_table:rough_duration"},
    "training.data": {"encode_problems": "encoding.token_store:encode_problems"},
    "training.divergence": {
        "latent_divergence": "training.rl_losses:latent_kl",
        "stop_divergence": "training.rl_losses:stop_kl",
    },
    "training.estimators": {
        "ESTIMATORS": "training.latent_gradients:LATENT_GRADIENTS",
        "Estimator": "training.latent_gradients:LatentGradient",
    },
    "training.evaluating": {"EvaluatingTrainer": "training.trainer:LatentTrainer"},
    "training.hybrid": {"HybridTrainer": "training.grpo_trainer:GRPOTrainer"},
    "training.latent_rl": {"LatentRLTrainer": "training.grpo_trainer:GRPOTrainer"},
    "training.likelihood": {"LikelihoodTrainer": "training.grpo_trainer:GRPOTrainer"},
    "training.spread": {"latent_spread": "training.rl_losses:between_question_std"},
}
"""What a renamed module held and its successor does not, by the name that it had there."""


def _read(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    new = ""
    for word in text.split():
        if word.endswith(":"):
            new = f"latentplan.{word[:-1]}"
        else:
            found[f"latentplan.{word}"] = new
    return found


RENAMED = _read(_RENAMED)
"""Old to new names."""
_GONE = frozenset(["latentplan.evaluation.selection"])
"""Packages that have no successor, only their modules have."""


class _Finder(MetaPathFinder, Loader):
    """Finds modules by their old names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Answers for old names alone, and for the packages that they stood in."""
        if fullname not in RENAMED and fullname not in _GONE:
            return None
        return ModuleSpec(fullname, self, is_package=any(old.startswith(f"{fullname}.") for old in RENAMED))

    def exec_module(self, module: ModuleType) -> None:
        """Fills the module with what the renamed one holds."""
        new = RENAMED.get(module.__name__)
        if new is None:
            return
        warnings.warn(
            f"{module.__name__} is {new} now; the old name goes with the next version",
            DeprecationWarning,
            stacklevel=2,
        )
        found = vars(import_module(new))
        vars(module).update({name: value for name, value in found.items() if not name.startswith("__")})
        for name, place in _MOVED.get(module.__name__.removeprefix("latentplan."), {}).items():
            home, _, attribute = place.partition(":")
            setattr(module, name, getattr(import_module(f"latentplan.{home}"), attribute))


def accept_old_names() -> None:
    """Has Python import modules by their old names, too."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        # First, since a folder that only holds __pycache__ would be found as a package.
        sys.meta_path.insert(0, _Finder())
