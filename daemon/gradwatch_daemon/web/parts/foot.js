// The foot of every page: whether the monitor itself is well. Nothing here says "ok" without a number behind it.
import { html } from "../html.js";
import { daemon, profile, runs } from "../store.js";
import { count, whole } from "../words.js";

export function Foot() {
  const status = daemon.value;
  if (!status) return html`<footer class="foot dim">Asking the daemon…</footer>`;
  const lost = [...(runs.value?.values() || [])].reduce((sum, run) => sum + run.coverage.lost, 0);
  const refused = Object.values(status.refused).reduce((sum, n) => sum + n, 0);
  return html`<footer class="foot dim"><span>gradwatch ${status.version}, profile ${profile.value || status.profile}</span>
    <span>${count(status.rows, "row")} since ${new Date(status.started_at).toLocaleString()}</span>
    <span class=${lost ? "said" : ""}>${count(lost, "record")} lost over all runs</span>
    <span class=${refused ? "said" : ""}>${whole(refused)} frames refused</span>
    <span>${(status.data_dir.free_bytes / 2 ** 30).toFixed(1)} GiB free at ${status.data_dir.path}</span></footer>`;
}
