// The page: asks the server what it has, and again and again what it does.

import { Live } from "./charts.js";
import { ModelList } from "./models.js";
import { ask, askJson, BASE, useKey } from "./server.js";

const POLL_MS = 2000;
const INDEX_EVERY = 5;

const at = (id) => document.getElementById(id);
const live = new Live(at("charts"), at("live-table"));
const models = new ModelList(at("model-list"));
let index = null;
let paused = false;
let turns = 0;

function tell(text, quality) {
  const state = at("state");
  if (state.textContent !== text) state.textContent = text;
  state.className = quality;
}

async function showModels() {
  const text = await ask("/v2/repository/index", "POST");
  const [server, description] = await Promise.all([askJson("/v2"), askJson("/v2/openapi.json")]);
  index = text;
  at("server-version").textContent = server.version;
  const entries = JSON.parse(text);
  models.show(entries, description.paths);
  const names = [...new Set(entries.map((entry) => entry.name))];
  at("scope").replaceChildren(new Option("all models", ""), ...names.map((name) => new Option(name, name)));
  at("scope").value = names.includes(live.scope) ? live.scope : "";
  live.scope = at("scope").value;
  at("changed").hidden = true;
}

async function isReady() {
  const response = await fetch(`${BASE}/v2/health/ready`, { cache: "no-store" });
  return response.ok;
}

async function turn() {
  if (paused || document.hidden) {
    live.forget();
    return;
  }
  try {
    if (index === null) await showModels();
    else if (++turns % INDEX_EVERY === 0 && (await ask("/v2/repository/index", "POST")) !== index) {
      at("changed").hidden = false;
    }
    await live.poll();
    models.showRates(live);
    at("key-form").hidden = true;
    if (await isReady()) tell("Ready", "good");
    else tell("Not ready: a model of the folder is not loaded", "bad");
  } catch (error) {
    live.forget();
    if (error.status === 401) {
      at("key-form").hidden = false;
      tell(error.message, "");
    } else tell(error.status ? `${error.status}: ${error.message}` : "The server does not answer", "bad");
  }
}

async function again() {
  await turn();
  setTimeout(again, POLL_MS);
}

at("scope").addEventListener("change", (event) => {
  live.scope = event.target.value;
  live.draw();
});
at("pause").addEventListener("click", (event) => {
  paused = !paused;
  event.target.setAttribute("aria-pressed", paused);
  if (paused) tell("Paused", "");
});
at("refresh").addEventListener("click", () => showModels().catch(() => turn()));
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(at("key").value.trim());
  at("key").value = "";
  turn();
});
again();
