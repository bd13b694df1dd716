// One model's answer: its times, its labels with bars and what carried them, and the command that asks for it again.

import { element } from "./dom.js";
import { number, tree } from "./tree.js";

// `answer` is of service.js; `scores` is "calibrated" or "raw"; `other` holds the ids that a model beside this one answers,
// each with its place there, or is null; `opened` holds the names of what is open.
export function column(answer, { scores, other, opened, command, copy }) {
  const shares = bars(answer.labels, scores);
  const labels = answer.labels.map((label, place) => item(label, shares[place], other, opened));
  const name = `${answer.model}:${answer.version}`;
  return element(
    "section",
    { "aria-label": name },
    element("h2", {}, answer.model, element("small", {}, answer.version)),
    element("p", { class: "meaning" }, scores === "calibrated" ? "Scores are probabilities." : "Scores are raw: they only order the labels."),
    timing(answer.timing),
    labels.length ? element("ol", {}, ...labels) : element("p", {}, "No label is left."),
    copying(command, copy, opened),
  );
}

export function refused(name, error) {
  return element("section", { "aria-label": name }, element("h2", {}, name), element("p", { class: "refused" }, error.message));
}

// Share of the whole bar. A probability is one by itself; raw scores fill the room between the least and the largest shown.
function bars(labels, scores) {
  if (scores === "calibrated") return labels.map(({ score }) => score);
  const all = labels.map(({ score }) => score);
  const [least, largest] = [Math.min(...all), Math.max(...all)];
  return all.map((score) => (largest > least ? (score - least) / (largest - least) : 1));
}

function item(label, share, other, opened) {
  const bar = element("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--share", share);
  const made = element(
    "li",
    {},
    element("span", { class: "score" }, number(label.score)),
    element("span", { class: "label" }, label.text ?? label.id),
    bar,
  );
  if (label.text != null) made.append(element("code", { class: "id" }, label.id));
  if (other?.has(label.id)) {
    made.classList.add("shared");
    made.append(element("span", { class: "mark" }, `Also there, at place ${other.get(label.id)}`));
  }
  if (label.zero_shot) made.append(element("span", { class: "mark" }, "Added from its text, never trained"));
  if (label.explanation != null) made.append(explanation(label, opened));
  return made;
}

function explanation(label, opened) {
  const made = element("details", { "data-name": `label ${label.id}` }, element("summary", {}, "Why"), tree(label.explanation));
  made.open = opened.has(made.dataset.name);
  return made;
}

function timing(stages) {
  const made = element("dl", { class: "timing", "aria-label": "Milliseconds" });
  for (const [name, milliseconds] of stages) {
    made.append(element("div", {}, element("dt", {}, name), element("dd", {}, `${milliseconds.toFixed(2)} ms`)));
  }
  return made;
}

function copying(command, copy, opened) {
  const text = element("pre", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Command" }, command);
  const shown = element("details", { class: "command", "data-name": "command" }, element("summary", {}, "Command"), text);
  shown.open = opened.has(shown.dataset.name);
  const button = element("button", { type: "button" }, "Copy as curl");
  button.addEventListener("click", () => copy(command, shown, text));
  return element("div", { class: "copy" }, button, shown);
}
