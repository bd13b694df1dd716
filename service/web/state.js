// What the form says, as the fragment of a link that brings it back, and as the body of a request.

export const DEFAULT_K = 5;

// Text fields of the form by their names in the link.
const FIELDS = ["query", "model", "compare", "k", "allow", "deny"];

export function toFragment(state) {
  const written = new URLSearchParams();
  for (const name of FIELDS) if (state[name]) written.set(name, state[name]);
  if (state.explain) written.set("explain", "1");
  for (const group of state.groups) written.append("group", group);
  return written.toString();
}

export function fromFragment(fragment) {
  const written = new URLSearchParams(fragment);
  const state = Object.fromEntries(FIELDS.map((name) => [name, written.get(name) ?? ""]));
  return { ...state, k: state.k || String(DEFAULT_K), explain: written.has("explain"), groups: written.getAll("group") };
}

// Throws a sentence where the text is no sparse vector.
export function toRequest(state, model, takesFeatures) {
  const filter = {};
  if (ids(state.allow).length) filter.allow = ids(state.allow);
  if (ids(state.deny).length) filter.deny = ids(state.deny);
  if (state.groups.length) filter.groups = state.groups;
  return {
    model,
    ...(takesFeatures ? { features: [toVector(state.query)] } : { queries: [state.query] }),
    k: Number(state.k),
    ...(Object.keys(filter).length && { filter }),
    ...(state.explain && { explain: true }),
  };
}

// An example of a model as a user would type it.
export function fromExample(example) {
  if (typeof example === "string") return example;
  return example.indices.map((index, position) => `${index}:${example.values[position]}`).join(" ");
}

function ids(written) {
  return written.split(/[,\n]/).map((id) => id.trim()).filter(Boolean);
}

function toVector(text) {
  const vector = { indices: [], values: [] };
  for (const pair of text.trim().split(/\s+/)) {
    const [, index, value] = /^(\d+):(\S+)$/.exec(pair) ?? [];
    if (index === undefined || !Number.isFinite(Number(value))) {
      throw new Error(`Expected index:value pairs such as 7:0.5, found ${pair}.`);
    }
    vector.indices.push(Number(index));
    vector.values.push(Number(value));
  }
  return vector;
}
