// One model's column under "What if": the intact chain, a table of every single edit, a row for each edit by hand.

import { counted, el } from "./dom.js";
import { title, verdict } from "./thought.js";

const SINGLE = {
  zero: ["set to zero", (step) => [step]],
  noise: ["noise", (step) => [step]],
  delete: ["deleted", (step) => [step]],
  swap: ["exchanged with the next", (step) => [step, step + 1]],
  keep: ["chain ends before it", (step) => [step - 1]],
};

/** Every edit of one step of a chain of `length` steps, `most` at most. */
export function everyEdit(length, most) {
  const edits = Object.entries(SINGLE).flatMap(([kind, [, stepsOf]]) =>
    Array.from({ length: kind === "swap" ? length - 1 : length }, (_, place) => ({ kind, steps: stepsOf(place + 1) })));
  return edits.slice(0, most);
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

  addEvery(result, edits) {
    this.show(result);
    const changed = result.outcomes.filter((outcome) => outcome.answer !== result.intact.answer).length;
    const numbers = Array.from({ length: this.length }, (_, place) => place + 1);
    const rows = Object.entries(SINGLE).map(([kind, [name]]) => {
      const mine = result.outcomes.filter((_, place) => edits[place].kind === kind);
      return mine.length && el("tr", {}, el("th", { scope: "row" }, name), numbers.map((_, place) => cell(mine[place], result.intact)));
    });
    this.every.replaceChildren(el("div", { class: "scroll" }, el("table", { class: "every" },
      el("caption", {}, `The answer after each single edit; it changed after ${changed} of ${counted(result.outcomes.length, "edit")}.`),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "step"), numbers.map((step) => el("th", { scope: "col" }, String(step))))),
      el("tbody", {}, rows.filter(Boolean)))));
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
