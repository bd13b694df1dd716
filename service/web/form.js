// The form: what it says, and what it offers. What is chosen stays offered though the service may not know it (any more):
// then the service's own sentence says so.

import { byId, element } from "./dom.js";
import { fromExample } from "./state.js";

const TEXT_FIELDS = ["query", "model", "compare", "k", "allow", "deny"];
const HINTS = {
  text: ["Text", "As the model was trained: a title, and its content on a new line."],
  features: ["Features", "Sparse numbers as index:value pairs, such as 7:0.5 12:1."],
};

export function read() {
  const values = Object.fromEntries(TEXT_FIELDS.map((id) => [id, byId(id).value]));
  const groups = [...byId("groups").querySelectorAll("input:checked")].map((box) => box.value);
  return { ...values, explain: byId("explain").checked, groups };
}

export function write(state) {
  for (const id of ["model", "compare"]) keepOffered(byId(id), state[id]);
  for (const id of TEXT_FIELDS) byId(id).value = state[id];
  if (!state.model) byId("model").selectedIndex = 0;
  byId("explain").checked = state.explain;
  byId("filters").open = Boolean(state.allow || state.deny || state.groups.length);
  offerGroups({}, state.groups);
}

// `models` are summaries, as the service lists them.
export function offerModels(models) {
  const options = choices(models);
  fill(byId("model"), options);
  fill(byId("compare"), [["", "–"], ...options]);
}

// Models that read another kind of input cannot be asked the same.
export function allowComparisons(isAlike) {
  for (const option of byId("compare").options) option.disabled = option.value !== "" && !isAlike(option.value);
}

export function offerExamples(examples, take) {
  const buttons = examples.map((example) => {
    const text = fromExample(example);
    const button = element("button", { type: "button" }, text);
    button.addEventListener("click", () => take(text));
    return button;
  });
  byId("examples").replaceChildren(...buttons);
  byId("examples").hidden = buttons.length === 0;
}

// `sizes` holds the number of labels of each group that the model has.
export function offerGroups(sizes, chosen) {
  const boxes = [...new Set([...Object.keys(sizes), ...chosen])].map((name, place) => {
    const box = element("input", { type: "checkbox", id: `group-${place}`, value: name });
    box.checked = chosen.includes(name);
    const title = name in sizes ? `${name} (${counted(sizes[name])})` : name;
    return element("p", { class: "check" }, box, element("label", { for: box.id }, title));
  });
  byId("groups").replaceChildren(byId("groups").querySelector("legend"), ...boxes);
  byId("groups").hidden = boxes.length === 0;
}

export function describeInput(kind) {
  const [label, hint] = HINTS[kind];
  byId("query-label").textContent = label;
  byId("query-hint").textContent = hint;
}

// A name stands for all its versions; where there are several, each can be chosen as well.
function choices(models) {
  return [...new Set(models.map(({ name }) => name))].flatMap((name) => {
    const versions = models.filter((model) => model.name === name);
    if (versions.length === 1) return [[name, `${name} (${counted(versions[0].label_count)} labels)`]];
    return [
      [name, `${name} (${versions.length} versions, by weight)`],
      ...versions.map(({ version }) => [`${name}:${version}`, `${name}:${version}`]),
    ];
  });
}

function fill(select, options) {
  const chosen = select.value;
  select.replaceChildren(...options.map(([value, title]) => element("option", { value }, title)));
  if (chosen) {
    keepOffered(select, chosen);
    select.value = chosen;
  }
}

function keepOffered(select, value) {
  if (value && ![...select.options].some((option) => option.value === value)) {
    select.append(element("option", { value }, value));
  }
}

const counted = (count) => count.toLocaleString("en");
