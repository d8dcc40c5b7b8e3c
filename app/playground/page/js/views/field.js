/** One field: its label, its help, and why it was refused. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { live } from "../../vendor/lit-html/directives/live.js";
import { fill, form } from "../form.js";
import { state } from "../state.js";

/** @param {string} name of the field in the request */
export const idOf = (name) => `field-${name.replaceAll(".", "-")}`;

/** @param {string} name @param {string | null} help */
function describedBy(name, help) {
  const ids = [help && `${idOf(name)}-help`, state.refused[name] && `${idOf(name)}-error`].filter(Boolean);
  return ids.length ? ids.join(" ") : nothing;
}

/** @param {string} name @param {string | null} help */
export function notes(name, help) {
  const refused = state.refused[name];
  return html`
    ${help ? html`<p class="help" id="${idOf(name)}-help">${help}</p>` : nothing}
    ${refused ? html`<p class="refused" id="${idOf(name)}-error">${refused}</p>` : nothing}
  `;
}

/** @param {string} name @param {string} label @param {{help?: string, rows?: number, placeholder?: string}} how */
export function textField(name, label, { help, rows = 2, placeholder = "" } = {}) {
  return html`
    <div class="field">
      <label for=${idOf(name)}>${label}</label>
      <textarea
        id=${idOf(name)} rows=${rows} placeholder=${placeholder} spellcheck="false"
        aria-invalid=${state.refused[name] ? "true" : "false"} aria-describedby=${describedBy(name, help ?? null)}
        .value=${live(form[name])} @input=${(/** @type {any} */ event) => fill({ [name]: event.target.value })}
      ></textarea>
      ${notes(name, help ?? null)}
    </div>
  `;
}

/**
 * @param {string} name @param {string} label
 * @param {{help?: string, placeholder?: string | number, min?: number, max?: number, step?: number | "any", extra?: unknown}} how
 */
export function numberField(name, label, { help, placeholder = "", min, max, step = "any", extra = nothing } = {}) {
  return html`
    <div class="field number">
      <label for=${idOf(name)}>${label}</label>
      <div class="beside">${numberInput(name, { help, placeholder, min, max, step })}${extra}</div>
      ${notes(name, help ?? null)}
    </div>
  `;
}

/** @param {string} name @param {{help?: string, placeholder?: string | number, min?: number, max?: number, step?: number | "any"}} how */
export function numberInput(name, { help, placeholder = "", min, max, step = "any" }) {
  return html`<input
    type="number" inputmode="decimal" id=${idOf(name)} placeholder=${placeholder} autocomplete="off"
    min=${min ?? nothing} max=${max ?? nothing} step=${step}
    aria-invalid=${state.refused[name] ? "true" : "false"} aria-describedby=${describedBy(name, help ?? null)}
    .value=${live(form[name])} @input=${(/** @type {any} */ event) => fill({ [name]: event.target.value })}
  >`;
}

/** @param {string} name @param {string} legend @param {[string, string][]} options @param {(value: string) => void} choose */
export function segments(name, legend, options, choose = (value) => fill({ [name]: value })) {
  return html`
    <fieldset class="segments">
      <legend class="unseen">${legend}</legend>
      ${options.map(([value, label]) => html`
        <label>
          <input type="radio" name=${name} value=${value} .checked=${live(form[name] === value)} @change=${() => choose(value)}>
          <span>${label}</span>
        </label>
      `)}
    </fieldset>
  `;
}

/** @param {string} name @param {string} label @param {[string, string][]} options @param {(value: string) => void} choose */
export function choice(name, label, options, choose = (value) => fill({ [name]: value }), help = "") {
  return html`
    <div class="field">
      <label for=${idOf(name)}>${label}</label>
      <select
        id=${idOf(name)} aria-invalid=${state.refused[name] ? "true" : "false"} aria-describedby=${describedBy(name, help || null)}
        .value=${live(form[name])} @change=${(/** @type {any} */ event) => choose(event.target.value)}
      >
        ${options.map(([value, text]) => html`<option value=${value} ?selected=${form[name] === value}>${text}</option>`)}
      </select>
      ${notes(name, help || null)}
    </div>
  `;
}
