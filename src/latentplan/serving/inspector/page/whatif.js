// One model's column under "What if": the intact chain, a table of every single edit, a row for each edit by hand.

import { counted, el } from "./dom.js";
import { title, verdict } from "./thought.js";

// Each row of the table of every edit: its name, and for step `step` of `length` the edit, or nothing.
const ROWS = [
  ["set to zero", (step) => ({ kind: "zero", steps: [step] })],
  ["noise", (step) => ({ kind: "noise", steps: [step] })],
  ["deleted", (step) => ({ kind: "delete", steps: [step] })],
  ["exchanged with the next", (step, length) => step < length && { kind: "swap", steps: [step, step + 1] }],
  ["chain ends before it", (step) => ({ kind: "keep", steps: [step - 1] })],
  ["kept alone", (step, length) => length > 1 && { kind: "delete", steps: upTo(length).filter((other) => other !== step) }],
];

const upTo = (length) => Array.from({ length }, (_, place) => place + 1);

/** Every edit of one step of a chain of `length` steps, `most` at most: `[{row, step, edit}]`. */
export function everyEdit(length, most) {
  return ROWS.flatMap(([row, editOf]) => upTo(length).map((step) => ({ row, step, edit: editOf(step, length) })))
    .filter(({ edit }) => edit).slice(0, most);
}

/** The column of a model; `add` takes the answers of `inspect/intervene`, `addEvery` that of `everyEdit`. */
export class WhatIf {
  constructor(facts) {
    this.facts = facts;
    this.length = 0;
    this.intact = el("tbody");
    this.rows = el("tbody");
    this.table = el("table", { class: "outcomes", hidden: true },
      el("thead", {}, el("tr", {}, ["edit", "answer", "the chain then reads"].map((name) => el("th", { scope: "col" }, name)))),
      this.intact, this.rows);
    this.every = el("div");
    this.note = el("p", { class: "error", role: "alert", hidden: true });
    this.element = el("article", { class: "column" }, title(facts), this.note, this.every, this.table);
  }

  add(result) {
    this.show(result);
    const others = result.others.map((other) => row({ ...other, label: `the other question: ${other.label}` }, null));
    this.rows.prepend(...result.outcomes.map((outcome) => row(outcome, result.intact, result.others)), ...others);
  }

  addEvery(result, tried) {
    this.show(result);
    const changed = result.outcomes.filter((outcome) => outcome.answer !== result.intact.answer).length;
    const found = (row, step) => result.outcomes[tried.findIndex((each) => each.row === row && each.step === step)];
    const steps = upTo(this.length);
    const rows = ROWS.map(([row]) => el("tr", {}, el("th", { scope: "row" }, row), steps.map((step) => cell(found(row, step), result.intact))));
    this.every.replaceChildren(el("div", { class: "scroll" }, el("table", { class: "every" },
      el("caption", {}, `The answer after each single edit; it changed after ${changed} of ${counted(result.outcomes.length, "edit")}.`),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "step"), steps.map((step) => el("th", { scope: "col" }, String(step))))),
      el("tbody", {}, rows))));
  }

  show(result) {
    this.note.hidden = true;
    this.table.hidden = false;
    this.intact.replaceChildren(row(result.intact, null));
  }

  failed(message) {
    this.note.hidden = false;
    this.note.textContent = message;
  }
}

function cell(outcome, intact) {
  if (!outcome) return el("td", {}, "–");
  const changed = outcome.answer !== intact.answer;
  const reads = outcome.plan ? `reads ${outcome.plan.steps.map((step) => step.text || "nothing").join(" ") || "no steps"}` : null;
  return el("td", { class: changed ? "changed" : "same", title: reads }, outcome.answer ?? "none", changed ? el("span", { class: "hidden" }, " (changed)") : null);
}

function row(outcome, intact, others = []) {
  const steps = outcome.plan?.steps ?? null;
  const before = intact?.plan?.steps ?? null;
  const changed = intact !== null && outcome.answer !== intact.answer;
  const taken = others.find((other) => other.answer === outcome.answer);
  return el("tr", { class: changed ? "changed" : intact ? "" : "intact" },
    el("th", { scope: "row" }, outcome.label),
    el("td", { class: "answer" }, el("b", {}, outcome.answer ?? "none"), verdict(outcome),
      intact ? el("small", {}, changed ? (taken ? " changed, as the other question's" : " changed") : " as before") : null),
    el("td", { class: "chain-text" }, steps === null ? counted(outcome.num_steps, "latent step") : reads(steps, before)));
}

function reads(steps, before) {
  if (!steps.length) return "no steps";
  return steps.map((step, place) => {
    const differs = before !== null && before[place]?.text !== step.text;
    return el("code", { class: differs ? "differs" : null }, step.text || "nothing");
  }).flatMap((element, place) => (place ? [" ", element] : [element]));
}
