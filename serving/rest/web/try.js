// The form that sends a request to a model, and what came back.

import { ask } from "./server.js";

const MOST_ROWS = 50;
const MOST_COLUMNS = 16;
const DIGITS = 6;

export class TryForm {
  // `example` is the body of a request of nested lists, or undefined where it is too large.
  constructor(form, path, inputs, example) {
    this.form = form;
    this.path = path;
    this.example = example;
    this.answer = form.querySelector(".answer");
    this.whole = form.querySelector(".body");
    this.inputs = inputs.filter((tensor) => tensor.parameters?.ragged !== "row_splits");
    this.texts = new Map();
    for (const tensor of this.inputs) this.addField(tensor);
    label(form.querySelector(".whole"), this.whole);
    this.reset();
    form.querySelector(".reset").addEventListener("click", () => this.reset());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
  }

  addField(tensor) {
    const field = document.createElement("div");
    field.className = "field";
    const name = document.createElement("label");
    name.append(part("code", tensor.name), part("span", this.hint(tensor), "quiet"));
    const text = document.createElement("textarea");
    text.spellcheck = false;
    text.rows = 2;
    field.append(name, text);
    label(field, text);
    this.form.querySelector(".fields").append(field);
    this.texts.set(tensor.name, text);
  }

  hint(tensor) {
    const ragged = tensor.parameters?.ragged ? "a list of rows of any lengths" : "";
    return [tensor.datatype, ragged || `[${shapeText(tensor)}]`].join(", ");
  }

  reset() {
    for (const { name, data } of this.example?.inputs ?? []) {
      this.texts.get(name).value = pretty(data);
      this.texts.get(name).rows = Math.min(8, pretty(data).split("\n").length + 1);
    }
    if (!this.example) this.tell("The example is too large to be shown here; see the calls below.");
    this.whole.value = this.example ? this.compose(true) : "";
    for (const text of this.texts.values()) text.removeAttribute("aria-invalid");
    if (this.example) this.answer.replaceChildren();
    this.answer.classList.remove("refused");
  }

  edit(asJson) {
    if (asJson) {
      try {
        this.whole.value = this.compose(true);
      } catch {
        // What is not JSON yet stays in its field; the body keeps what it had.
      }
    }
    this.form.querySelector(".fields").hidden = asJson;
    this.form.querySelector(".whole").hidden = !asJson;
  }

  // The fields' own text goes into the body: a number of 64 bits would lose digits in between.
  compose(readable = false) {
    const tensors = this.inputs.map((tensor) => {
      const { name, datatype } = tensor;
      const text = this.texts.get(name).value;
      const data = parsed(name, text);
      const given = { name, datatype };
      const scalar = !Array.isArray(data);
      if (!tensor.parameters?.ragged) given.shape = scalar ? [] : shapeOf(data, tensor.shape);
      const head = JSON.stringify(given).slice(0, -1);
      const flat = readable ? text.replace(/\s*\n\s*/g, " ").trim() : text;
      return `${head},"data":${scalar ? `[${flat}]` : flat}}`;
    });
    const separator = readable ? ",\n    " : ",";
    const [open, close] = readable ? ["{\n  ", "\n}"] : ["{", "}"];
    const nested = `"parameters":{"nested":true}`;
    return `${open}${nested},${readable ? "\n  " : ""}"inputs":[${readable ? "\n    " : ""}${tensors.join(separator)}]${close}`;
  }

  async send() {
    for (const text of this.texts.values()) text.removeAttribute("aria-invalid");
    const button = this.form.querySelector(".send");
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    try {
      const asJson = !this.form.querySelector(".whole").hidden;
      const body = asJson ? this.whole.value : this.compose();
      const began = performance.now();
      const text = await ask(`${this.path}/infer`, "POST", body);
      this.show(text, performance.now() - began);
    } catch (error) {
      this.tell(error.status ? `${error.status}: ${error.message}` : error.message, true);
      const named = /input '([^']+)'/.exec(error.message)?.[1];
      this.texts.get(named?.replace(/\.row_splits$/, ""))?.setAttribute("aria-invalid", "true");
    } finally {
      button.removeAttribute("aria-disabled");
    }
  }

  tell(message, refused = false) {
    this.answer.classList.toggle("refused", refused);
    this.answer.replaceChildren(part("p", message, "told"));
  }

  show(text, milliseconds) {
    const answer = JSON.parse(text);
    this.tell(`Answered in ${milliseconds.toFixed(1)} ms by version ${answer.model_version}`);
    for (const output of answer.outputs) {
      this.answer.append(part("h5", `${output.name} ${output.datatype} [${output.shape}]`));
      const scroll = part("div", "", "scroll");
      scroll.append(valuesTable(rowsOf(output)));
      this.answer.append(scroll);
    }
    const json = document.createElement("details");
    json.append(part("summary", "As JSON"), part("pre", text.length > 1e5 ? `${text.slice(0, 1e5)} …` : text));
    this.answer.append(json);
  }
}

export function shapeText(tensor) {
  return (tensor.parameters?.dims ?? tensor.shape).join(", ");
}

export function part(tag, text, className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

let lastId = 0;

function label(field, text) {
  text.id = `field-${++lastId}`;
  field.querySelector("label").htmlFor = text.id;
}

function parsed(name, text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`input '${name}' is not JSON: ${error.message}`);
  }
}

// The shape of nested lists; an empty list cannot show the axes behind it.
function shapeOf(data, declared) {
  const shape = [];
  for (let part = data; Array.isArray(part); part = part[0]) shape.push(part.length);
  if (!shape.includes(0)) return shape;
  return [...shape, ...declared.slice(shape.length).map((size) => Math.max(size, 0))];
}

// Rows on lines of their own, each with its steps beside one another.
function pretty(data) {
  if (!Array.isArray(data?.[0])) return JSON.stringify(data);
  return `[${data.map((row) => JSON.stringify(row)).join(",\n ")}]`;
}

// The answer as rows of cells: ragged ones come as rows, dense ones flat.
function rowsOf({ data, shape }) {
  if (shape.includes(-1)) return data;
  if (shape.length < 2) return data.map((value) => [value]);
  const width = shape.slice(1).reduce((a, b) => a * b, 1);
  return Array.from({ length: shape[0] }, (_, i) => data.slice(i * width, (i + 1) * width));
}

function valuesTable(rows) {
  const table = part("table", "", "values");
  for (const [index, values] of rows.slice(0, MOST_ROWS).entries()) {
    const row = table.insertRow();
    row.append(Object.assign(part("th", `${index}`), { scope: "row" }));
    for (const value of values.slice(0, MOST_COLUMNS)) row.insertCell().textContent = shown(value);
    if (values.length > MOST_COLUMNS) row.insertCell().textContent = `… ${values.length} in all`;
  }
  if (rows.length > MOST_ROWS) table.insertRow().insertCell().textContent = "…";
  return table;
}

function shown(value) {
  if (Array.isArray(value)) return JSON.stringify(value.map((v) => (Array.isArray(v) ? v : shown(v)))).replaceAll('"', "");
  return typeof value === "number" && !Number.isInteger(value) ? `${Number(value.toPrecision(DIGITS))}` : `${value}`;
}
