// The shell around every page: sign-in, header, what is wrong with the connection, and the page that the address names.
import { effect, html, render, useEffect, useState } from "./html.js";
import { check, session, signOut } from "./session.js";
import { go, href, route } from "./route.js";
import { live, paused, refetch, watch } from "./stream.js";
import { alarming, catchUp, loadCatalogue, loadDaemon, loadRuns, open, trouble, wantsEyes } from "./store.js";
import { act, handle } from "./keyboard.js";
import { Banner, LiveDot, Trouble } from "./parts/state.js";
import { Foot } from "./parts/foot.js";
import { Help } from "./parts/help.js";
import { SignIn } from "./pages/signin.js";
import { Fleet } from "./pages/fleet.js";
import { Run } from "./pages/run.js";
import { AnomalyPage } from "./pages/anomaly.js";
import { Anomalies } from "./pages/anomalies.js";
import { Detectors } from "./pages/detectors.js";
import { Silences } from "./pages/silences.js";
import { Layers } from "./pages/layers.js";
import { Lost } from "./pages/lost.js";

const PAGES = { "": Fleet, anomalies: Anomalies, detectors: Detectors, silences: Silences };
const NAV = [["anomalies", "Anomalies"], ["detectors", "Detectors"], ["silences", "Silences"]];
const DAEMON_MS = 15000;

function pageOf({ parts }) {
  const [name = "", id, part] = parts;
  if (name === "runs") return !id ? Fleet : part === "layers" ? Layers : part ? Lost : Run;
  if (name === "anomalies" && id) return AnomalyPage;
  return id ? Lost : PAGES[name] || Lost;
}

/** Cycle through auto, light, dark. */
export function nextTheme() {
  const order = ["auto", "light", "dark"];
  const now = document.documentElement.dataset.choice;
  globalThis.gradwatchTheme(order[(order.indexOf(now) + 1) % order.length]);
}

function ThemeButton() {
  const [choice, setChoice] = useState(document.documentElement.dataset.choice);
  useEffect(() => {
    const read = () => setChoice(document.documentElement.dataset.choice);
    addEventListener("gradwatch-theme", read);
    return () => removeEventListener("gradwatch-theme", read);
  }, []);
  const glyph = { auto: "◑", light: "☀", dark: "☾" }[choice];
  return html`<button class="quiet" onClick=${nextTheme} aria-label=${`Theme: ${choice}. Change it`} title=${`Theme: ${choice} (t)`}>
    <span aria-hidden="true">${glyph}</span></button>`;
}

function Header() {
  const here = route.value.parts[0] || "";
  const waiting = [...open.value.values()].filter(wantsEyes).length;
  const tab = (parts, name, text) => html`<a href=${href(parts)} aria-current=${here === name ? "page" : undefined}>${text}</a>`;
  return html`<header class="top">
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>Skip to the page</a>
    <a class="brand" href=${href([])}><span aria-hidden="true" class="mark"></span>gradwatch</a>
    <nav aria-label="Pages">${tab([], "", "Fleet")}${NAV.map(([name, text]) =>
      tab([name], name, name === "anomalies" && waiting ? html`${text} <span class="badge" title=${`${waiting} in all runs that fire and nobody has acknowledged`}>${waiting}</span>` : text))}</nav>
    <span class="spacer"></span>
    <${LiveDot} />
    <button class="quiet" onClick=${() => act("help")} aria-label="Keys and words" title="Keys and words (?)">?</button>
    <${ThemeButton} />
    <button class="quiet who" onClick=${signOut} title=${`Signed in with the token ${session.value.name} (${session.value.scope}). Sign out`}>
      <span class="wide dim">${session.value.name} · </span>sign out</button>
  </header>`;
}

/** Load what every page needs, again whenever the stream says that events are missing. */
function useShared() {
  useEffect(() => effect(() => {
    refetch.value;
    Promise.all([loadRuns(), loadCatalogue(), loadDaemon()]).catch((error) => { trouble.value = error; });
  }), []);
  useEffect(() => {
    const timer = setInterval(() => { if (!document.hidden) loadDaemon().catch(() => {}); }, DAEMON_MS);
    const shown = () => { if (!document.hidden) catchUp(); };
    document.addEventListener("visibilitychange", shown);
    return () => { clearInterval(timer); document.removeEventListener("visibilitychange", shown); };
  }, []);
  useEffect(() => effect(() => {
    const [name, id] = route.value.parts;
    watch(name === "runs" && id ? id : null);
  }), []);
  useEffect(() => handle({
    runs: () => go([]),
    anomalies: () => go(["anomalies"]),
    detectors: () => go(["detectors"], { run: route.value.parts[0] === "runs" ? route.value.parts[1] : "" }),
    theme: nextTheme,
    copy: () => navigator.clipboard?.writeText(location.href),
    pause: () => { paused.value = !paused.value; if (!paused.value) refetch.value += 1; },
  }), []);
}

function Signed() {
  useShared();
  const Page = pageOf(route.value);
  const lost = live.value.state === "lost";
  return html`<${Header} />
    <${Banner} />
    <main id="main" tabindex="-1" class=${lost || paused.value ? "stale" : ""}>
      ${trouble.value && html`<${Trouble} problem=${trouble.value} />`}
      <${Page} key=${`${route.value.parts.join("/")}`} parts=${route.value.parts} />
    </main>
    <${Foot} /><${Help} />`;
}

function App() {
  useEffect(() => { check(); }, []);
  useEffect(() => effect(() => {
    const run = route.value.parts[0] === "runs" ? route.value.parts[1] : "";
    document.title = `${alarming.value ? `(${alarming.value}!) ` : ""}${run ? `${run} · ` : ""}gradwatch`;
  }), []);
  const { phase } = session.value;
  if (phase === "in") return html`<${Signed} />`;
  if (phase === "checking") return html`<main class="centre"><p>Asking the daemon…</p></main>`;
  return html`<${SignIn} />`;
}

render(html`<${App} />`, document.getElementById("app"));
