// An address that names no page.
import { html } from "../html.js";
import { href } from "../route.js";

export function Lost() {
  return html`<h1>No such page</h1><p>The address names nothing here. <a href=${href([])}>All runs</a></p>`;
}
