// Which page is shown: everything behind the # of the address, so each state of a page is a link that can be sent.
import { signal } from "./html.js";

// A part that is no percent-encoding is taken as it stands: a link cut short still leads to a page.
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function parse() {
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decoded);
  return { parts, query: Object.fromEntries(new URLSearchParams(query || "")) };
}

export const route = signal(parse());
addEventListener("hashchange", () => { route.value = parse(); });

/** Put another address in the place of the one shown, without a trace of it in the history. */
export function replace(address) {
  history.replaceState(null, "", address);
  route.value = parse();
}

/** The address of a page: `href(["runs", name], {x: "time"})`. Values that are empty are left out. */
export function href(parts, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const search = given.length ? `?${new URLSearchParams(given)}` : "";
  return `#/${parts.map(encodeURIComponent).join("/")}${search}`;
}

export function go(parts, query) {
  location.hash = href(parts, query);
}

/** Change parts of the query of the page shown. It replaces: the back button leaves the page, not a zoom. */
export function amend(changes) {
  const { parts, query } = route.value;
  replace(href(parts, { ...query, ...changes }));
}
