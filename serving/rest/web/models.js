// The list of models: versions, states, signatures, proofs, calls.

import { askJson, BASE } from "./server.js";
import { TryForm, part, shapeText } from "./try.js";
import { short } from "./charts.js";

const PROOF = "keras_blocks.proof";
const CHANGES = "keras_blocks.changes";
// Where the calls of the document point to.
const DOCUMENT_URL = "http://localhost:8080";
const DOCUMENT_GRPC = "localhost:8081";

let choices = 0;

export class ModelList {
  constructor(place) {
    this.place = place;
    this.cards = new Map();
  }

  // `entries` are those of the repository's index, `paths` those of the OpenAPI document.
  show(entries, paths) {
    const open = new Set([...this.cards].filter(([, card]) => card.open).map(([name]) => name));
    this.cards.clear();
    const names = [...new Set(entries.map((entry) => entry.name))];
    for (const name of names) {
      const versions = entries.filter((entry) => entry.name === name);
      const card = this.card(name, versions, paths);
      this.cards.set(name, card);
      card.open = open.has(name) || (names.length === 1 && versions[0].state === "READY");
    }
    const none = part("p", "No model is loaded.", "quiet");
    this.place.replaceChildren(...(names.length ? this.cards.values() : [none]));
  }

  showRates(live) {
    for (const [name, card] of this.cards) {
      const rate = live.rate(name);
      card.querySelector(".rate").textContent = rate === undefined ? "" : `${short(rate)} requests/s`;
    }
  }

  card(name, entries, paths) {
    const template = document.getElementById("model-template");
    const card = template.content.cloneNode(true).firstElementChild;
    card.dataset.model = name;
    card.querySelector("h3").textContent = name;
    const ready = entries.filter((entry) => entry.state === "READY");
    const badge = card.querySelector(".badge");
    badge.textContent = ready.length ? "ready" : entries[0].reason || entries[0].state.toLowerCase();
    badge.classList.add(ready.length ? "good" : "bad");
    const versions = ready.map((entry) => entry.version).sort((a, b) => b - a);
    const brief = card.querySelector(".brief");
    brief.textContent = versions.length > 1 ? `versions ${versions.join(", ")}` : versions.length ? `version ${versions[0]}` : "";
    const select = card.querySelector(".versions");
    select.append(...versions.map((version) => new Option(version)));
    card.querySelector(".version-choice").hidden = versions.length < 2;
    const shown = card.querySelector(".shown");
    const show = () => versionView(name, select.value, paths).then(
      (view) => shown.replaceChildren(view),
      (error) => shown.replaceChildren(part("p", error.message, "answer refused")),
    );
    select.addEventListener("change", show);
    card.addEventListener("toggle", () => card.open && !shown.firstChild && versions.length && show());
    return card;
  }
}

async function versionView(name, version, paths) {
  const path = `/v2/models/${encodeURIComponent(name)}/versions/${version}`;
  const [metadata, config] = await Promise.all([askJson(path), askJson(`${path}/config`)]);
  const view = document.getElementById("version-template").content.cloneNode(true);
  // The names of other programs' quoting differ in a few signs; what they mean does not.
  const key = Object.keys(paths).find((known) => decodeURIComponent(known) === decodeURIComponent(`${path}/infer`));
  const operation = paths[key]?.post ?? {};
  showProof(view.querySelector(".proof"), config.parameters ?? {});
  const body = view.querySelector(".signature tbody");
  for (const side of ["inputs", "outputs"]) {
    metadata[side].forEach((tensor, index) => body.append(signatureRow(tensor, index ? "" : side)));
  }
  const example = operation.requestBody?.content["application/json"].examples?.lists?.value;
  const form = new TryForm(view.querySelector(".try"), path, metadata.inputs, example);
  choice(view.querySelector(".modes"), ["Fields", "JSON"], (mode) => form.edit(mode === "JSON"));
  showCalls(view.querySelector(".calls"), operation["x-codeSamples"] ?? []);
  return view;
}

function signatureRow(tensor, side) {
  const row = document.createElement("tr");
  row.append(Object.assign(part("th", side, "side"), { scope: "row" }));
  for (const text of [tensor.name, tensor.datatype, `[${shapeText(tensor)}]`, notes(tensor)]) {
    row.append(part("td", text));
  }
  return row;
}

function notes({ name, parameters: p = {} }) {
  const found = [];
  if (p.ragged === "values") found.push("all rows after one another");
  if (p.ragged === "row_splits") found.push("where each row begins and ends");
  if (p.minimum !== undefined || p.maximum !== undefined) {
    found.push(`${p.minimum ?? "−∞"} to ${p.maximum ?? "∞"}`);
  }
  if (p.tree_of) found.push(p.tree_of === name ? "parents of trees, −1 at a root" : `parents of the nodes of ${p.tree_of}, −1 at a root`);
  if (p.max_children) found.push(`at most ${p.max_children} children`);
  if (p.forest) found.push("several roots allowed");
  if (p.leaves_of) found.push(`for the leaves of ${p.leaves_of}`);
  if (p.edges_of) found.push(`above the nodes of ${p.edges_of}`);
  if (p.edge_labels) found.push(`${p.edge_labels} labels`);
  if (p.siblings_differ) found.push("siblings differ");
  return found.join("; ");
}

function showProof(place, parameters) {
  const proof = stored(parameters, PROOF);
  const changes = stored(parameters, CHANGES) ?? [];
  let text = "The file brings no proof.";
  if (proof) {
    place.classList.toggle("proven", proof.ok === true);
    text = `${proof.ok === true ? "Equals" : "Was compared with"} the Keras model on ${proof.samples} samples, worst error ${proof.max_error}`;
    if (proof.level) text += `, level ${proof.level}`;
    if (proof.skipped) text += `; ${proof.skipped} comparisons skipped`;
    if (proof.left_out) text += `; ${proof.left_out} left out for want of time`;
    const versions = Object.entries(proof.versions ?? {}).map((pair) => pair.join(" "));
    text += `.${versions.length ? ` By ${versions.join(", ")}.` : ""}`;
  }
  for (const change of changes) {
    text += ` Changed since: ${change.change}, off by ${change.max_error} on ${change.samples} samples.`;
  }
  place.textContent = text;
}

function stored(parameters, key) {
  try {
    return JSON.parse(parameters[key].string_value);
  } catch {
    return undefined;
  }
}

function showCalls(place, samples) {
  const code = place.querySelector("code");
  const texts = new Map(samples.map(({ label, source }) => [label, here(source)]));
  place.hidden = !samples.length;
  choice(place.querySelector(".languages"), [...texts.keys()], (name) => {
    code.textContent = texts.get(name);
  });
  const copy = place.querySelector(".copy");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      copy.textContent = "Copied";
    } catch {
      // Browsers copy for secure pages only: select it, so that Ctrl+C does.
      getSelection().selectAllChildren(code);
      copy.textContent = "Selected";
    }
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
}

// gRPC is on the port after that of HTTP unless the server was told otherwise.
function here(source) {
  const port = Number(location.port || (location.protocol === "https:" ? 443 : 80)) + 1;
  return source.replaceAll(DOCUMENT_URL, BASE).replaceAll(DOCUMENT_GRPC, `${location.hostname}:${port}`);
}

function choice(fieldset, names, chosen) {
  const group = `choice-${++choices}`;
  names.forEach((name, index) => {
    const option = document.createElement("label");
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: group, checked: !index });
    radio.addEventListener("change", () => chosen(name));
    option.append(radio, name);
    fieldset.append(option);
  });
  if (names.length) chosen(names[0]);
}
