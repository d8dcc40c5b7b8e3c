/** NAG's numbers: a slider for the hand, a field for what lies beyond it, and the model's own value to go back to. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { live } from "../../vendor/lit-html/directives/live.js";
import { NUMBERS, fill, form } from "../form.js";
import { idOf, notes, numberInput } from "./field.js";

/** The slider's ends are where pictures are still pictures; the field takes whatever the server does. */
const SLIDERS = {
  scale: { symbol: "s", min: 1, max: 15, step: 0.5, help: "How far to go from the negative prompt. 1 is off." },
  tau: { symbol: "τ", min: 1, max: 10, step: 0.1, help: "The most that guidance may enlarge a feature, as a ratio. Lower is tamer." },
  alpha: { symbol: "α", min: 0, max: 1, step: 0.005, help: "How much of the guided feature is blended in. 0 is none of it." },
  end: { symbol: "θ", min: 0, max: 1, step: 0.05, help: "The share of the noise schedule that is guided, from its start. 1 is every step; on Flux, 0.5 is most of them." },
  start: { symbol: "⊢", min: 0, max: 0.95, step: 0.05, help: "The share of the noise schedule that goes by before guidance begins. Stays below end." },
  scale_decay: { symbol: "↘", min: 0, max: 1, step: 0.05, help: "How much of the scale is lost on the way to the end. 1 ends in none." },
};

/** @param {import("../api.js").Model} model */
export function sliders(model) {
  const swept = form.mode === "sweep" ? form["sweep.over"] : null;
  const touched = NUMBERS.filter((name) => name !== swept && form[`nag.${name}`] !== "");
  return html`
    ${NUMBERS.filter((name) => name !== swept).map((name) => slider(name, model))}
    ${touched.length ? html`
      <button type="button" class="quiet" @click=${() => fill(Object.fromEntries(NUMBERS.map((each) => [`nag.${each}`, ""])))}>
        Back to the model’s own values
      </button>
    ` : nothing}
  `;
}

/** @param {string} name @param {import("../api.js").Model} model */
function slider(name, model) {
  const { symbol, min, max, step, help } = SLIDERS[/** @type {keyof typeof SLIDERS} */ (name)];
  const field = `nag.${name}`;
  const usual = /** @type {any} */ (model.nag)[name];
  const value = form[field] === "" ? usual : form[field];
  return html`
    <div class="field slider">
      <span><label for=${idOf(field)}>${name}</label> <i aria-hidden="true">${symbol}</i></span>
      ${numberInput(field, { help, placeholder: usual, min, step: "any" })}
      <input
        type="range" aria-label="${name}, slider" min=${min} max=${max} step=${step} list="${idOf(field)}-usual"
        .value=${live(String(value))} @input=${(/** @type {any} */ event) => fill({ [field]: event.target.value })}
      >
      <datalist id="${idOf(field)}-usual"><option value=${usual}></option></datalist>
      ${notes(field, `${help} This model’s own is ${usual}.`)}
    </div>
  `;
}
