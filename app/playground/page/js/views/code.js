/** The form's request as something to copy. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { NAMES, NamedFile, code } from "../code.js";
import { chosenModel, form } from "../form.js";
import { chosenFiles } from "../inputs.js";
import { asked } from "../requests.js";
import { changed, say, state } from "../state.js";

const COPIED_MS = 1500;
const shown = { language: "curl", which: 0, copied: false };

export function codeView() {
  const model = chosenModel();
  if (model === undefined || !state.codeShown) return nothing;
  const bodies = requests(model);
  if (bodies.length === 0) return html`<section class="code" id="code"><p class="help">The form does not say enough for a request yet.</p></section>`;
  const { label, body } = bodies[Math.min(shown.which, bodies.length - 1)];
  const root = new URL(".", document.baseURI).href;
  const text = code(shown.language, { ...body, ...named(model) }, { root, withKey: state.key.asked, model });
  return html`
    <section class="code" id="code" aria-label="The request as code">
      <div class="bar">
        ${radios("language", "Language", NAMES, shown.language, (value) => (shown.language = value))}
        ${bodies.length > 1 ? radios("which", "Which request", bodies.map((each, index) => [String(index), each.label]),
          String(bodies.findIndex((each) => each.label === label)), (value) => (shown.which = Number(value))) : nothing}
        <button type="button" @click=${() => copy(text)}>${shown.copied ? "Copied" : "Copy"}</button>
      </div>
      <pre tabindex="0" role="region" aria-label="Code to copy"><code>${text}</code></pre>
    </section>
  `;
}

/** @param {import("../api.js").Model} model */
function requests(model) {
  try {
    return asked(form, model, chosenFiles(model)).filter((each) => each.body !== null);
  } catch {
    return []; // the form says why, once it is sent
  }
}

/** The fields of the files, by their names. @param {import("../api.js").Model} model */
function named(model) {
  return Object.fromEntries(Object.entries(chosenFiles(model)).map(([field, files]) => {
    const names = files.map((file) => new NamedFile(file.name));
    return [field, field === "references" ? names : names[0]];
  }));
}

/**
 * @param {string} name @param {string} legend @param {[string, string][]} options @param {string} current
 * @param {(value: string) => void} choose
 */
function radios(name, legend, options, current, choose) {
  return html`
    <fieldset class="segments">
      <legend class="unseen">${legend}</legend>
      ${options.map(([value, label]) => html`
        <label>
          <input type="radio" name="code-${name}" value=${value} .checked=${value === current} @change=${() => { choose(value); changed(); }}>
          <span>${label}</span>
        </label>
      `)}
    </fieldset>
  `;
}

/** @param {string} text */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    selectCode(); // browsers lend the clipboard to https and localhost alone
    return;
  }
  shown.copied = true;
  say("Copied");
  changed();
  setTimeout(() => {
    shown.copied = false;
    changed();
  }, COPIED_MS);
}

function selectCode() {
  const pre = document.querySelector(".code pre");
  if (pre === null) return;
  getSelection()?.selectAllChildren(pre);
  say("Selected: copy it with the keyboard");
}
