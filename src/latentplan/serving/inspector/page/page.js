// The page: what is asked, of which models, and where the answers go. One request for each model and action.

import { alert, byId, counted, el } from "./dom.js";
import { Abandoned, Refused, abandon, fetchEvents, fetchJson, setKey } from "./server.js";
import { Thought } from "./thought.js";
import { votesColumn } from "./votes.js";
import { WhatIf, everyEdit } from "./whatif.js";

const state = { setup: null, question: "", reference: null, asked: [], whatif: new Map(), running: null, next: null };

async function start() {
  try {
    state.setup = await fetchJson("setup");
  } catch (error) {
    showError(byId("error"), error);
    return;
  }
  byId("key-row").hidden = true;
  alert(byId("error"), "");
  const { models, examples, limits } = state.setup;
  byId("models").replaceChildren(byId("models").firstElementChild, ...models.map(modelBox));
  byId("models").hidden = models.length < 2;
  byId("count").max = limits.max_samples;
  byId("count").value = Math.min(16, limits.max_samples);
  fillExamples(examples);
}

function modelBox(facts, place) {
  const kind = [facts.method, facts.stage].filter(Boolean).join(", ");
  return el("label", { class: "chip" }, el("input", { type: "checkbox", name: "model", value: facts.name, checked: place < 3 }),
    el("span", {}, facts.name, " ", el("small", {}, kind)));
}

function fillExamples(examples) {
  byId("examples-row").hidden = !examples.length;
  const groups = new Map();
  examples.forEach((example, place) => {
    if (!groups.has(example.num_steps)) groups.set(example.num_steps, []);
    groups.get(example.num_steps).push(el("option", { value: place }, example.question));
  });
  const sorted = [...groups].sort(([a], [b]) => a - b);
  byId("examples").replaceChildren(el("option", { value: "" }, "choose …"),
    ...sorted.map(([steps, options]) => el("optgroup", { label: counted(steps, "step") }, options)));
  if (examples.length) {
    const longest = examples.reduce((best, each) => (each.num_steps > best.num_steps ? each : best));
    byId("question").value ||= longest.question;  // what has been typed while there was no key yet stays
    byId("other").value = (examples.find((each) => each.num_steps === longest.num_steps && each !== longest) ?? examples[0]).question;
  }
}

function showError(element, error) {
  if (!(error instanceof Refused)) console.error(error);
  if (error.status === 401) byId("key-row").hidden = false;
  alert(element, error instanceof Refused ? error.message : `The page has a fault: ${error.message}`);
}

const chosen = () => {
  const names = new Set([...document.querySelectorAll("input[name=model]:checked")].map((box) => box.value));
  return state.setup.models.filter((facts) => names.has(facts.name));
};

/** Starts an action when the one before it is over; of several that wait only the last is begun. */
async function inTurn(action) {
  state.next = action;
  if (state.running) return;
  while (state.next) {
    [state.running, state.next] = [state.next, null];
    byId("status").textContent = "thinking …";
    document.body.classList.add("busy");
    await state.running().catch((error) => showError(byId("error"), error));
    state.running = null;
  }
  byId("status").textContent = "";
  document.body.classList.remove("busy");
}

/** Runs one job for each model, all at once; `place` shows an error. Returns the errors. */
async function forEach(models, place, job) {
  alert(place, "");
  const outcomes = await Promise.allSettled(models.map(job));
  const errors = outcomes.filter((outcome) => outcome.status === "rejected").map((outcome) => outcome.reason)
    .filter((error) => !(error instanceof Abandoned));
  if (errors.length) showError(place, errors[0]);
  return errors;
}

async function ask() {
  setKey(byId("key").value);
  if (!state.setup) await start();
  if (!state.setup) return;
  const question = byId("question").value.trim(), models = chosen();
  if (!question) return alert(byId("error"), "The question is empty.");
  if (!models.length) return alert(byId("error"), "No model is chosen.");
  state.question = question;
  state.reference = state.setup.examples.find((example) => example.question === question)?.answer ?? null;
  state.asked = models;
  const columns = new Map(models.map((facts) => [facts.name, new Thought(facts)]));
  byId("asked").textContent = question;
  if (state.reference !== null) byId("asked").append(el("small", {}, ` The right answer is ${state.reference}.`));
  byId("thought-columns").replaceChildren(...[...columns.values()].map((column) => column.element));
  byId("samples-columns").replaceChildren();
  for (const id of ["sample-error", "edit-error"]) alert(byId(id), "");
  for (const id of ["thought", "samples", "whatif"]) byId(id).hidden = false;
  let refused = 0;
  await forEach(models, byId("error"), async (facts) => {
    const column = columns.get(facts.name);
    try {
      await fetchEvents("ask", body(facts), (event) => column.add(event));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      column.failed(error.message);
      refused += 1;
      if (refused === models.length || error.status === 401) throw error;
    }
  });
  if (refused === models.length) for (const id of ["thought", "samples", "whatif"]) byId(id).hidden = true;
  else prepareEdits(models, columns);
}

const body = (facts, more = {}) => ({ model: facts.name, question: state.question, reference: state.reference, ...more });

function prepareEdits(models, columns) {
  const latent = models.filter((facts) => facts.latents);
  byId("whatif").hidden = !latent.length;
  state.whatif = new Map(latent.map((facts) => [facts.name, new WhatIf(facts)]));
  for (const [name, column] of state.whatif) column.length = columns.get(name).steps.length;
  byId("whatif-columns").replaceChildren(...[...state.whatif.values()].map((column) => column.element));
  const most = Math.max(0, ...latent.map((facts) => columns.get(facts.name).steps.length));
  const box = (step) => el("label", { class: "chip" }, el("input", { type: "checkbox", name: "step", value: step, checked: step === 1 }), el("span", {}, String(step)));
  byId("edit-steps").replaceChildren(byId("edit-steps").firstElementChild, ...numbers(1, most).map(box));
  const alike = latent.filter((facts) => facts.hidden_size === latent.at(-1).hidden_size && facts.latents_per_step === latent.at(-1).latents_per_step);
  byId("move-row").hidden = alike.length < 2;
  byId("towards").replaceChildren(...alike.map((facts) => el("option", { value: facts.name, selected: facts === alike.at(-1) }, facts.name)));
  const longest = Math.max(1, ...latent.map((facts) => facts.max_latent_steps));
  byId("from-step").replaceChildren(el("option", { value: "" }, "the same"), ...numbers(1, longest).map((step) => el("option", { value: step }, String(step))));
}

const numbers = (first, last) => Array.from({ length: Math.max(0, last - first + 1) }, (_, place) => first + place);

async function sample() {
  const settings = {
    count: byId("count").valueAsNumber, temperature: byId("temperature").valueAsNumber,
    latent_temperature: byId("latent-temperature").valueAsNumber, seed: byId("seed").valueAsNumber,
  };
  const found = new Map();
  await forEach(state.asked, byId("sample-error"), async (facts) => {
    found.set(facts.name, votesColumn(facts, await fetchJson("sample", body(facts, settings))));
  });
  byId("samples-columns").replaceChildren(...state.asked.filter((facts) => found.has(facts.name)).map((facts) => found.get(facts.name)));
}

const SHARES = [0.25, 0.5, 0.75, 1];

function editsOf(action) {
  const steps = [...document.querySelectorAll("input[name=step]:checked")].map((input) => Number(input.value));
  const other = byId("other").value.trim(), from = byId("from-step").value;
  const on = byId("think-on").checked;
  if (action === "keep") return [{ kind: "keep", steps: [Math.max(...steps)] }];
  if (action === "splice-all") return [{ kind: "splice", steps: [], question: other, think_on: on }];
  if (action === "splice") return [{ kind: "splice", steps, question: other, from_step: from ? Number(from) : null, think_on: on }];
  if (action === "move") return SHARES.map((share) => ({ kind: "move", model: byId("towards").value, share, think_on: on }));
  return [{ kind: action, steps, think_on: on && action !== "delete" }];
}

async function edit(action) {
  const columns = [...state.whatif.values()].filter((column) => action !== "move" || column.facts.name !== byId("towards").value);
  const needsSteps = !["all", "splice-all", "move"].includes(action);
  if (needsSteps && !document.querySelector("input[name=step]:checked")) return alert(byId("edit-error"), "Choose a step first.");
  if (action.startsWith("splice") && !byId("other").value.trim()) return alert(byId("edit-error"), "The other question is empty.");
  await forEach(columns, byId("edit-error"), async (column) => {
    if (!column.length && action !== "splice-all") return column.failed("This chain has no steps to change.");
    const every = action === "all" ? everyEdit(column.length, state.setup.limits.max_edits) : null;
    const edits = every ? every.map((each) => each.edit) : editsOf(action);
    try {
      const result = await fetchJson("intervene", body(column.facts, { edits }));
      if (every) column.addEvery(result, every);
      else column.add(result);
    } catch (error) {
      if (!(error instanceof Refused) || error.status === 0 || error.status === 401) throw error;
      column.failed(error.message);
    }
  });
}

/** A new question does not wait for the answers to the last one. */
function askNow() {
  abandon();
  inTurn(ask);
}

byId("ask").addEventListener("submit", (event) => { event.preventDefault(); askNow(); });
byId("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); askNow(); }
});
byId("question").addEventListener("input", () => { byId("examples").value = ""; });
byId("examples").addEventListener("change", (event) => {
  if (event.target.value !== "") byId("question").value = state.setup.examples[Number(event.target.value)].question;
});
byId("another").addEventListener("click", () => {
  const place = Math.floor(Math.random() * state.setup.examples.length);
  byId("examples").value = String(place);
  byId("question").value = state.setup.examples[place].question;
});
byId("sample").addEventListener("submit", (event) => { event.preventDefault(); inTurn(sample); });
byId("edit").addEventListener("submit", (event) => { event.preventDefault(); const action = event.submitter?.value ?? "zero"; inTurn(() => edit(action)); });
start();
