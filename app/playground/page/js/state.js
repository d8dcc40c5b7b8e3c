/** What the page shows. `changed()` has it rendered, once for all changes of a turn. */

/**
 * @typedef {import("./api.js").Model} Model
 * @typedef {import("./api.js").Lora} Lora
 * @typedef {import("./runs.js").Run} Run
 * @typedef {import("./inputs.js").InputFiles} InputFiles
 */

export const state = {
  /** @type {Model[]} */
  models: [],
  /** All that the caller may name, of every model. @type {Lora[]} */
  loras: [],
  /** The files that the next request starts from, by their field in it. @type {InputFiles} */
  inputs: {},
  uploading: false,
  /** Messages of refused fields, by the field's name in the request. @type {Record<string, string>} */
  refused: {},
  /** Of the whole page, where no field is at fault. @type {string | null} */
  notice: null,
  /** The run that is shown. @type {Run | null} */
  run: null,
  /** All that are kept, newest first. @type {Run[]} */
  history: [],
  key: { asked: false, refused: false },
  codeShown: false,
  /** On a phone the pictures come first. */
  guidanceShown: !matchMedia("(max-width: 56rem)").matches,
};

let render = () => {};
let due = false;

/** @param {() => void} how */
export function renderBy(how) {
  render = how;
}

export function changed() {
  if (due) return;
  due = true;
  queueMicrotask(() => {
    due = false;
    render();
  });
}

/** Tells a screen reader. @param {string} text */
export function say(text) {
  const region = document.getElementById("said");
  if (region) region.textContent = text;
}
