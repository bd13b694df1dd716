// The page's life: what is typed is asked for, and the answer to what was typed last is shown.

import { curl } from "./curl.js";
import { byId } from "./dom.js";
import * as form from "./form.js";
import { column, refused } from "./results.js";
import * as service from "./service.js";
import { fromFragment, toFragment, toRequest } from "./state.js";

// A pause in typing after which the service is asked.
const ASK_MS = 80;
// Browsers allow about three changes of the address a second.
const REMEMBER_MS = 400;
// Between two looks whether a model has been loaded.
const LOOK_MS = 1000;
// Refusals that pass by themselves; 0 where nothing came back.
const PASSING = new Set([0, 429, 503]);

const details = new Map(); // by what a model was asked for as
let inputs = new Map(); // "text" or "features" by the same names
let round = new AbortController(); // of the requests for what was typed last; aborted when more is typed
let described = null; // the model that examples and groups are shown of
let asking, remembering;

async function start() {
  details.clear();
  described = null;
  try {
    const models = await service.models();
    inputs = new Map(models.flatMap((model) => [model.name, `${model.name}:${model.version}`].map((name) => [name, model.input])));
    form.offerModels(models);
    if (models.length) await ask();
    else later("No model is loaded yet.", start, LOOK_MS);
  } catch (error) {
    if (error.status === 401) byId("access").hidden = false;
    if (PASSING.has(error.status)) later(error.message, start, LOOK_MS);
    else say(error.message);
    busy(false);
  }
}

async function ask() {
  round.abort();
  clearTimeout(asking);
  if (!inputs.size) return start();
  const { signal } = (round = new AbortController());
  busy(true);
  const state = form.read();
  const names = [...new Set([state.model, state.compare].filter(Boolean))];
  const outcomes = [];
  try {
    await describe(state.model, signal);
    const requests = names.map((name) => toRequest(state, name, inputs.get(state.model) === "features"));
    if (state.query.trim()) outcomes.push(...(await Promise.all(requests.map((request) => answer(request, signal)))));
    if (signal.aborted) return;
    show(outcomes);
    if (!outcomes.length) say("Type, and labels appear here.");
  } catch (error) {
    if (signal.aborted) return;
    show([]);
    say(error.message);
  }
  busy(false);
}

// One model's answer with the request it is to, or its refusal.
async function answer(request, signal) {
  try {
    const found = await service.predict(request, signal);
    const { scores } = await detail(`${found.model}:${found.version}`);
    return { request, found, scores };
  } catch (error) {
    return { request, error };
  }
}

function show(outcomes) {
  const opened = openNow();
  const ids = outcomes.map(({ found }) => found && new Map(found.labels.map(({ id }, place) => [id, place + 1])));
  const columns = outcomes.map(({ request, found, scores, error }, place) => {
    if (error) return refused(request.model, error);
    const command = curl(request, service.key() !== "");
    const other = outcomes.length === 2 ? ids[1 - place] : null;
    return column(found, { scores, other, opened: opened[place] ?? new Set(), command, copy });
  });
  byId("results").replaceChildren(...columns);
  agree(ids);
  summarise(outcomes);
}

// What is open in each column, to stay so when labels change.
function openNow() {
  return [...byId("results").children].map(
    (section) => new Set([...section.querySelectorAll("details[open]")].map((open) => open.dataset.name)),
  );
}

function agree(ids) {
  const [one, other] = ids;
  byId("agreement").hidden = !(one && other);
  if (!one || !other) return;
  const most = Math.max(one.size, other.size);
  const both = [...one.keys()].filter((id) => other.has(id)).length;
  const share = most ? Math.round((100 * both) / most) : 100;
  byId("agreement").textContent = `agreement@${most}: ${both} of ${most} labels (${share} %)`;
}

function summarise(outcomes) {
  const sentences = outcomes.map(({ request, found, error }) => {
    if (error) return `No answer from ${request.model}.`;
    const best = found.labels[0];
    return best ? `${found.model}: ${found.labels.length} labels, first ${best.id}.` : `${found.model}: no labels.`;
  });
  say(sentences.join(" "));
  const errors = outcomes.map(({ error }) => error).filter(Boolean);
  if (errors.some(({ status }) => status === 401 || status === 403)) byId("access").hidden = false;
  const waits = errors.filter(({ status }) => PASSING.has(status)).map((error) => error.retryAfterSeconds ?? 1);
  if (waits.length) later(sentences.join(" "), ask, 1000 * Math.max(...waits));
}

// Examples and groups of a model, when another one was chosen.
async function describe(name, signal) {
  form.describeInput(inputs.get(name) ?? "text");
  form.allowComparisons((other) => inputs.get(other) === inputs.get(name));
  if (name === described) return;
  const { examples, groups } = await detail(name);
  if (signal.aborted) return;
  form.offerExamples(examples, take);
  form.offerGroups(groups ?? {}, form.read().groups);
  described = name;
}

function detail(name) {
  if (!details.has(name)) {
    const coming = service.model(name);
    coming.catch(() => details.delete(name));
    details.set(name, coming);
  }
  return details.get(name);
}

function take(example) {
  byId("query").value = example;
  byId("query").focus();
  typed();
}

async function copy(command, shown, text) {
  try {
    await navigator.clipboard.writeText(command);
    say("The command is copied.");
  } catch {
    // Without TLS browsers let no page write to the clipboard.
    shown.open = true;
    getSelection().selectAllChildren(text);
    say("The browser does not let this page copy; the command is selected.");
  }
}

function busy(is) {
  byId("results").setAttribute("aria-busy", String(is));
}

function say(sentence) {
  byId("status").textContent = sentence;
}

function later(sentence, action, milliseconds) {
  say(`${sentence} Asking again in ${Math.ceil(milliseconds / 1000)} s.`);
  asking = setTimeout(action, milliseconds);
}

function typed() {
  clearTimeout(asking);
  clearTimeout(remembering);
  busy(true);
  asking = setTimeout(ask, ASK_MS);
  remembering = setTimeout(() => history.replaceState(null, "", `#${toFragment(form.read())}`), REMEMBER_MS);
}

byId("form").addEventListener("input", (event) => event.target !== byId("key") && typed());
byId("form").addEventListener("submit", (event) => event.preventDefault());
byId("key").addEventListener("change", (event) => {
  service.keepKey(event.target.value.trim());
  start();
});
addEventListener("hashchange", () => {
  form.write(fromFragment(location.hash.slice(1)));
  described = null;
  ask();
});

form.write(fromFragment(location.hash.slice(1)));
byId("access").hidden = service.key() === "";
byId("key").value = service.key();
byId("query").focus();
start();
