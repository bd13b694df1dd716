// Any JSON value as something to read: objects as lists of names, lists of like objects as tables.

import { element } from "./dom.js";

export function tree(value) {
  if (Array.isArray(value)) return isTable(value) ? table(value) : list(value);
  if (isObject(value)) return names(value);
  return element("span", {}, typeof value === "number" ? number(value) : String(value));
}

// With four significant digits: scores of 32 bits have hardly more to say, and columns stay narrow.
export function number(value) {
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

const isTable = (values) =>
  values.length > 0 && values.every((value) => isObject(value) && Object.values(value).every((cell) => !(cell instanceof Object)));

const words = (name) => name.replaceAll("_", " ");

function names(value) {
  const made = element("dl", { class: "tree" });
  for (const [name, inner] of Object.entries(value)) {
    made.append(element("div", {}, element("dt", {}, words(name)), element("dd", {}, tree(inner))));
  }
  return made;
}

function list(values) {
  return element("ul", {}, ...values.map((value) => element("li", {}, tree(value))));
}

// A table may be wider than a phone, so it scrolls by itself, and by keyboard.
function table(rows) {
  const columns = [...new Set(rows.flatMap(Object.keys))];
  const head = element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, words(name))));
  const body = rows.map((row) =>
    element("tr", {}, ...columns.map((name) => element("td", {}, name in row ? tree(row[name]) : ""))),
  );
  const made = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  return element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table" }, made);
}
