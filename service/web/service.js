// The service's HTTP interface, and the key that it may ask for. Addresses are relative, so that a prefix of a proxy holds.

const KEY = "xmcserve.key";

export const key = () => sessionStorage.getItem(KEY) ?? "";

export function keepKey(written) {
  if (written) sessionStorage.setItem(KEY, written);
  else sessionStorage.removeItem(KEY);
}

// An answer that is none: `status` is 0 where nothing came back.
export class Refused extends Error {
  constructor(sentence, status, retryAfterSeconds = null) {
    super(sentence);
    this.status = status;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

export async function models() {
  return (await json("v1/models")).models;
}

export function model(identity) {
  return json(`v1/models/${encodeURIComponent(identity)}`);
}

// The answer to one request for labels, with the milliseconds of its stages and of the whole way there and back.
export async function predict(body, signal) {
  const started = performance.now();
  const response = await ask("predict", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  const answer = await response.json();
  const timing = [...stages(response.headers.get("Server-Timing")), ["round trip", performance.now() - started]];
  return { model: answer.model, version: answer.version, labels: answer.predictions[0].labels, timing };
}

async function json(path) {
  return (await ask(path, {})).json();
}

async function ask(path, request) {
  const headers = { ...request.headers, ...(key() && { "X-API-Key": key() }) };
  let response;
  try {
    response = await fetch(path, { ...request, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The service cannot be reached.", 0);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const problem = await response.json().catch(() => ({})); // a proxy's refusal need not be a problem document
  const sentence = [problem.title ?? `Status ${response.status}`, problem.detail].filter(Boolean).join(": ");
  const seconds = response.headers.get("Retry-After");
  return new Refused(`${sentence}.`, response.status, seconds === null ? null : Number(seconds));
}

// "queue;dur=0.02, encode;dur=1.5" as pairs of a name and milliseconds.
function stages(header) {
  return [...(header ?? "").matchAll(/(\w+);dur=([\d.]+)/g)].map(([, name, milliseconds]) => [name, Number(milliseconds)]);
}
