// What is asked of the server, with the API key where one was given.

const STORED_KEY = "keras-blocks.key";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function useKey(key) {
  sessionStorage.setItem(STORED_KEY, key);
}

// The page may stand below a path of its own, behind a proxy.
export const BASE = new URL(".", document.baseURI).href.replace(/\/$/, "");

export async function ask(path, method = "GET", body = undefined) {
  const headers = {};
  const key = sessionStorage.getItem(STORED_KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(BASE + path, { method, headers, body, cache: "no-store" });
  const text = await response.text();
  if (!response.ok) throw new Refused(response.status, errorOf(text) ?? response.statusText);
  return text;
}

export async function askJson(path, method = "GET") {
  return JSON.parse(await ask(path, method));
}

function errorOf(text) {
  try {
    return JSON.parse(text).error;
  } catch {
    return undefined;
  }
}
