// One model's column under "Steps and answer": a card for each step as it comes, then the answer and the links.

import { bar, counted, el, percent, short, svg } from "./dom.js";

const SURE = 0.99, UNSURE = 0.9;

/** The column of a model; `add` takes the events of `inspect/ask`, `failed` a message. */
export class Thought {
  constructor(facts) {
    this.facts = facts;
    this.steps = [];
    this.arcs = svg("svg", { class: "arcs", "aria-hidden": "true" });
    this.list = el("ol", { class: "steps" });
    this.chain = el("div", { class: "chain" }, this.list, this.arcs);
    this.text = el("span");
    this.outcome = el("div", { class: "outcome waiting" }, el("span", { class: "label" }, "writes"), el("code", {}, this.text));
    this.scores = el("p", { class: "scores" });
    this.element = el("article", { class: "column" }, title(facts), this.chain, this.scores);
    this.chain.insertBefore(this.outcome, this.arcs);
    this.links = [];
    new ResizeObserver(() => this.draw()).observe(this.chain);
  }

  add(event) {
    this[event.event]?.(event);
  }

  step(event) {
    const card = el("li", { class: "card", "data-step": event.number },
      el("div", { class: "reading" },
        el("span", { class: "number" }, String(event.number)),
        event.decoded ? tokens(event.decoded.pieces) : nextWords(event.next_words)),
      event.decoded && sureness(event.decoded));
    card.append(gauges(event, this.facts));
    this.steps.push(card);
    this.list.append(card);
  }

  stop(event) {
    this.list.append(el("li", { class: "stop" }, "stops here ", bar(event.probability, `stop probability ${percent(event.probability)}`), percent(event.probability)));
  }

  token(event) {
    this.text.append(event.text);
  }

  done(event) {
    if (event.written) this.showWritten(event.written);
    if (!this.steps.length && !event.written) this.list.append(el("li", { class: "none" }, noSteps(this.facts)));
    event.plan?.steps.forEach((step, place) => this.steps[place]?.append(checks(step)));
    this.outcome.replaceWith(this.outcome = outcome(event));
    this.scores.append(scoreWords(event, this.facts));
    this.links = event.plan?.links ?? [];
    this.draw();
  }

  failed(message) {
    this.outcome.replaceWith(this.outcome = el("p", { class: "error", role: "alert" }, message));
  }

  showWritten(written) {
    written.forEach((step, place) => {
      const card = el("li", { class: "card", "data-step": place + 1 },
        el("div", { class: "reading" }, el("span", { class: "number" }, String(place + 1)), tokens(step.pieces)),
        el("p", { class: "sure" }, `written with ${percent(step.probability)}`));
      this.steps.push(card);
      this.list.append(card);
    });
  }

  /** Lines from each step to where its result is used, in the margin on the right; the number stands at the start. */
  draw() {
    this.arcs.replaceChildren();
    const left = this.list.offsetWidth, top = (element) => element.offsetTop, end = (element) => top(element) + element.offsetHeight;
    const started = this.steps.map(() => 0), ended = new Map(), labels = this.steps.map(() => new Set());
    for (const link of this.links) {
      const from = this.steps[link.start], to = link.end === null ? this.outcome : this.steps[link.end];
      if (!from || !to) continue;
      const reach = Math.min(46, 14 + 9 * ((link.end ?? this.steps.length) - link.start));
      const kind = link.end === null ? "arc to-answer" : "arc";
      const y0 = end(from) - 10 - 6 * started[link.start]++;
      const y1 = top(to) + 14 + 6 * (ended.get(to) ?? 0);
      ended.set(to, (ended.get(to) ?? 0) + 1);
      labels[link.start].add(link.value.length > 7 ? `${link.value.slice(0, 6)}…` : link.value);
      this.arcs.append(
        svg("path", { class: kind, "stroke-opacity": 0.35 + 0.65 * link.strength, d: `M ${left} ${y0} C ${left + reach} ${y0} ${left + reach} ${y1} ${left + 4} ${y1}` }),
        svg("path", { class: `${kind} head`, d: `M ${left + 7} ${y1 - 3.5} L ${left + 1} ${y1} L ${left + 7} ${y1 + 3.5} Z` }));
    }
    labels.forEach((values, place) => values.size && this.arcs.append(
      svg("text", { class: "arc", x: left + 6, y: end(this.steps[place]) - 14 - 6 * (started[place] - 1) }, [...values][0] + (values.size > 1 ? " …" : ""))));
  }
}

/** The heading of a model's column. */
export function title(facts) {
  const kind = [facts.method, facts.stage].filter(Boolean).join(", ");
  return el("h3", {}, facts.name, " ", el("small", {}, kind));
}

/** The text of a step, with tokens underlined that are not sure. */
function tokens(pieces) {
  if (!pieces.length) return el("code", { class: "none" }, "reads as nothing");
  return el("code", {}, pieces.map((piece) => {
    if (piece.probability >= SURE) return piece.text;
    const other = piece.other ? `, else ${piece.other.trim()} with ${percent(piece.other_probability)}` : "";
    return el("span", { class: piece.probability < UNSURE ? "token unsure" : "token fair", title: percent(piece.probability) + other }, piece.text);
  }));
}

function sureness(decoded) {
  const least = decoded.pieces.reduce((worst, piece) => (worst && worst.probability <= piece.probability ? worst : piece), null);
  const doubt = least && least.probability < UNSURE
    ? `: ${least.text.trim()} at ${percent(least.probability)}` + (least.other ? `, else ${least.other.trim()} at ${percent(least.other_probability)}` : "") : "";
  return el("p", { class: "sure" }, `read with ${percent(decoded.probability)}${doubt}`);
}

function nextWords(words) {
  const shown = words[0].map((word) => el("span", { class: "word" }, el("code", {}, word.text.trim() || "␣"), ` ${percent(word.probability)} `));
  return el("span", { class: "unread" }, "next word: ", shown);
}

function gauges(event, facts) {
  const latents = event.latents.map((latent) =>
    `‖z‖ ${short(latent.norm)}` + (latent.sigma === null ? "" : `, σ ${latent.sigma.toPrecision(2)}`)).join("; ");
  const stop = event.stop === null ? null
    : el("span", { class: "gauge" }, "stop ", bar(event.stop, `stop probability ${percent(event.stop)}`), percent(event.stop));
  return el("p", { class: "gauges" }, stop, el("span", {}, latents));
}

/** What can be checked of a step: true, grounded, used. */
export function checks(step) {
  const marks = [];
  const say = (value, good) => { if (value) marks.push(el("span", { class: "good" }, `✓ ${good}`)); };
  say(step.true, "true");
  say(step.grounded, "grounded");
  say(step.used, "used");
  if (step.score) marks.push(el("span", {}, `coherence ${percent(step.score)}`));
  for (const note of step.notes) marks.push(el("span", { class: "bad" }, `✗ ${note}`));
  return el("p", { class: "checks" }, marks);
}

function outcome(event) {
  const shown = event.answer === null
    ? el("span", { class: "bad" }, "no answer") : el("b", { class: "answer" }, event.answer);
  const box = el("div", { class: "outcome" }, el("span", { class: "label" }, "answer "), shown, verdict(event),
    el("span", { class: "label" }, ` with ${percent(event.answer_probability)}`));
  if (event.answer === null) box.append(el("p", { class: "sure" }, "wrote ", el("code", {}, event.completion || "nothing")));
  if (!event.finished) box.append(el("p", { class: "bad" }, "cut off at the limit of tokens"));
  return box;
}

/** Right or wrong, where it is known. */
export function verdict({ correct }) {
  if (correct === null) return "";
  return correct ? el("span", { class: "good" }, " ✓ right") : el("span", { class: "bad" }, " ✗ wrong");
}

function noSteps(facts) {
  if (facts.latents) return "Stopped before the first step: no latent was used.";
  return facts.written_steps ? "No step was written." : "This model answers at once: it has no latents and writes no steps.";
}

const SCORES = { coherence: "coherence", coherence_natural: "coherence of the sentences", validity: "validity", grounding: "grounding", plan: "plan score" };

/** A plan's scores in words. */
export const scoresOf = (plan) => Object.entries(SCORES).filter(([name]) => name in plan.scores)
  .map(([name, words]) => `${words} ${percent(plan.scores[name])}`).join(" · ");

function scoreWords(event, facts) {
  const written = event.num_tokens - event.num_latents;
  const cost = `${event.num_latents ? `${counted(event.num_latents, "latent")} + ` : ""}${counted(written, "text token")}`;
  const judged = event.plan ? `${scoresOf(event.plan)} · `
    : facts.latents && !facts.decoder ? "No step decoder: the latents cannot be read as steps. " : "";
  return judged + cost;
}
