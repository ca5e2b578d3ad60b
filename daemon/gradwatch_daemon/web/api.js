// The daemon's HTTP API as the pages use it. Addresses are relative to the page, so a proxy may put a prefix before all of them.

export const BASE = "api/v1/";

/** A refusal in the daemon's own words (problem+json), or what stands for one when nobody answered. */
export class Problem extends Error {
  constructor(document, status) {
    super(document.title);
    this.name = "Problem";
    this.status = status;
    this.code = document.code;
    this.title = document.title;
    this.detail = document.detail || "";
    this.hint = document.hint || "";
    this.instance = document.instance || "";
    this.errors = document.errors || [];
  }
}

const UNREACHABLE = {
  code: "unreachable",
  title: "The daemon does not answer.",
  hint: "See whether it runs: gradwatch status. This page tries again by itself.",
};

/** Send one request; the parsed answer, null for an empty one. Throws `Problem`. */
export async function request(method, path, { body, headers, signal } = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      signal,
      credentials: "same-origin",
      headers: { ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ ...UNREACHABLE, instance: path }, 0);
  }
  if (answer.status === 204) return null;
  const text = await answer.text();
  let document;
  try {
    document = JSON.parse(text);
  } catch {
    const title = `The answer was no JSON (HTTP ${answer.status}).`;
    throw new Problem({ code: "no-json", title, detail: text.slice(0, 200), instance: path }, answer.status);
  }
  if (!answer.ok) throw new Problem(document, answer.status);
  return document;
}

const query = (parameters) => {
  const given = Object.entries(parameters || {}).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
};

export const get = (path, parameters, options) => request("GET", BASE + path + query(parameters), options);
export const post = (path, body, options) => request("POST", BASE + path, { body, ...options });
export const patch = (path, body) => request("PATCH", BASE + path, { body });
export const remove = (path) => request("DELETE", BASE + path);

/** One segment of an address. */
export const segment = encodeURIComponent;
