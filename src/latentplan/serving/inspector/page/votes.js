// One model's column under "Sampled plans".

import { bar, counted, el, percent } from "./dom.js";
import { checks, scoresOf, title, verdict } from "./thought.js";

const SHOWN = 6;

/** The column of a model from the answer of `inspect/sample`. */
export function votesColumn(facts, result) {
  const column = el("article", { class: "column" }, title(facts), answers(result));
  if (result.plans === null) {
    column.append(el("p", { class: "none" }, facts.latents ? "No step decoder: the sampled latents cannot be read as plans."
      : "This model has no plan that could be read: it answers at once."));
    return column;
  }
  column.append(el("h4", {}, counted(result.plans.length, "different plan")));
  column.append(el("ol", { class: "plans" }, result.plans.slice(0, SHOWN).map((plan) => planItem(plan, result.count))));
  const more = result.plans.slice(SHOWN);
  if (more.length) {
    column.append(el("details", {}, el("summary", {}, `${counted(more.length, "more plan")}, ${counted(more.reduce((sum, plan) => sum + plan.votes, 0), "vote")}`),
      el("ol", { class: "plans" }, more.map((plan) => planItem(plan, result.count)))));
  }
  return column;
}

function answers(result) {
  const rows = result.answers.map((vote) => el("tr", {},
    el("th", { scope: "row" }, vote.answer ?? "no answer", verdict(vote)),
    el("td", {}, bar(vote.votes / result.count, `${vote.votes} of ${result.count}`, "vote")),
    el("td", { class: "votes" }, `${vote.votes} of ${result.count}`)));
  const unfinished = result.num_unfinished ? `; ${result.num_unfinished} cut off at the limit of tokens` : "";
  return el("table", { class: "answers" },
    el("caption", {}, `Votes for each answer, ${result.num_tokens.toFixed(1)} tokens a sample${unfinished}`), el("tbody", {}, rows));
}

function planItem(plan, count) {
  const steps = plan.steps.length
    ? el("ol", {}, plan.steps.map((step) => el("li", {}, el("code", {}, step.text || "reads as nothing"), step.notes.length ? checks({ notes: step.notes }) : null)))
    : el("p", { class: "none" }, "no steps");
  const led = plan.answers.map((vote) => (plan.answers.length > 1 ? `${vote.answer ?? "none"} (${vote.votes})` : vote.answer ?? "none")).join(", ");
  const score = "plan" in plan.scores ? `plan score ${percent(plan.scores.plan)}` : scoresOf(plan);
  return el("li", { class: "plan" },
    el("p", { class: "share" }, bar(plan.votes / count, `${plan.votes} of ${count}`, "vote"), el("b", {}, `${plan.votes} of ${count}`), ` answer ${led}`),
    steps, el("p", { class: "sure" }, score));
}
