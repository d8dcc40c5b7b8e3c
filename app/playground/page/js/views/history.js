/** Earlier runs, as small pictures. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { repeat } from "../../vendor/lit-html/directives/repeat.js";
import { address } from "../pictures.js";
import { forget, forgetAll, running, show } from "../runs.js";
import { state } from "../state.js";
import { MOST } from "../store.js";

/** @typedef {import("../runs.js").Run} Run */

const SHOWN = 3;

export function historyView() {
  if (state.history.length === 0) return nothing;
  return html`
    <header>
      <h2>History</h2>
      <p class="help">The last ${MOST}, in this browser alone.</p>
      <button type="button" class="quiet" @click=${clear}>Clear history</button>
    </header>
    <ol>${repeat(state.history, (run) => run.id, entry)}</ol>
  `;
}

/** @param {Run} run */
function entry(run) {
  const thumbnails = run.cells.map((cell) => cell.thumbnail).filter((each) => each !== null);
  const going = running(run);
  const name = `${run.form.prompt || "no prompt"}${run.form.negative_prompt ? `, without ${run.form.negative_prompt}` : ""}`;
  return html`
    <li>
      <button type="button" class="entry" aria-current=${run === state.run ? "true" : nothing} @click=${() => open(run)}>
        <span class="thumbnails">
          ${thumbnails.slice(0, SHOWN).map((each) => html`<img src=${address(/** @type {Blob} */ (each))} alt="">`)}
          ${thumbnails.length === 0 ? html`<span class="none">${going ? "…" : run.model.kind === "video" ? "▶" : "–"}</span>` : nothing}
        </span>
        <span class="title">${name}</span>
        <span class="when">${run.mode}, ${new Date(run.at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}</span>
      </button>
      ${going ? nothing : html`<button type="button" class="remove" aria-label="Remove ${name}" @click=${() => forget(run)}>×</button>`}
    </li>
  `;
}

/** @param {Run} run */
async function open(run) {
  await show(run);
  document.getElementById("results")?.focus();
}

function clear() {
  if (confirm("Remove all earlier runs from this browser?")) void forgetAll();
}
