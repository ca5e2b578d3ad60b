// Who looks: a one-time code from the address, or a token typed in, is changed for a cookie that no script can read.
import { signal } from "./html.js";
import { Problem, request } from "./api.js";
import { replace } from "./route.js";

/** phase: checking, in, out; `why` says in words why one is out. */
export const session = signal({ phase: "checking" });

const SESSION = "session";

async function open(secret) {
  await request("POST", SESSION, { headers: { Authorization: `Bearer ${secret}` } });
}

/** Take `#code=…` out of the address before anything else sees it: it must not stay in the history. */
function takeCode() {
  const found = /^#code=([A-Za-z0-9_-]+)$/.exec(location.hash);
  if (found) replace("#/");
  return found ? found[1] : null;
}

/** Ask who we are; with a code from the address, sign in first. What is shown stays while nobody answers. */
export async function check() {
  const code = takeCode();
  let why = "";
  if (code) {
    try {
      await open(code);
    } catch (error) {
      why = error.status === 401 ? "The code in the address was used already, or is older than 15 minutes." : error.title;
    }
  }
  try {
    const found = await request("GET", SESSION);
    session.value = { phase: "in", ...found };
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    const was = session.value.phase;
    if (error.status !== 0) session.value = { phase: "out", why: was === "in" ? "The session is over: sign in again." : why };
    else if (was !== "in") session.value = { phase: "unreachable", why: error.title };
  }
}

/** Sign in with a token that was typed in. Throws `Problem`. */
export async function signIn(token) {
  await open(token);
  await check();
}

export async function signOut() {
  await request("DELETE", SESSION);
  session.value = { phase: "out", why: "Signed out." };
}

/** Why the person may not change anything, '' when they may. */
export function readOnly() {
  return session.value.scope === "read" ? `Your token (${session.value.name}) allows reading only.` : "";
}
