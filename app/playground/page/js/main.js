/** The page: loads what it shows, renders it, and sends what is typed. */

import { html, nothing, render } from "../vendor/lit-html/lit-html.js";
import { ApiError, getQueue, listLoras, listModels } from "./api.js";
import { begin, chosenModel, form } from "./form.js";
import { INPUTS, addInputs, chosenFiles } from "./inputs.js";
import { FormError } from "./requests.js";
import { newRun, resume, running, show, start } from "./runs.js";
import { changed, renderBy, say, state } from "./state.js";
import { kept } from "./store.js";
import { codeView } from "./views/code.js";
import { idOf } from "./views/field.js";
import { formView } from "./views/form.js";
import { historyView } from "./views/history.js";
import { filesOf } from "./views/inputs.js";
import { keyState, keyView } from "./views/key.js";
import { resultsView } from "./views/results.js";

const QUEUE_MS = 5000;
let idle = "";
let sending = false;

renderBy(() => {
  put("key-state", keyState());
  put("notices", html`${keyView(load)}${noticeView()}`);
  put("ask", formView(submit));
  put("results", html`${codeView()}${resultsView()}`);
  put("history", historyView());
});

/** @param {string} id @param {unknown} what */
function put(id, what) {
  render(what, /** @type {HTMLElement} */ (document.getElementById(id)));
}

function noticeView() {
  return html`
    ${state.notice ? html`<p class="notice refused" role="alert">${state.notice}</p>` : nothing}
    ${idle ? html`<p class="notice" role="status">${idle}</p>` : nothing}
  `;
}

/** @param {Event} event */
async function submit(event) {
  event.preventDefault();
  const model = chosenModel();
  if (model === undefined || sending) return;
  state.refused = {};
  state.notice = null;
  changed();
  sending = true;
  try {
    await start(newRun(form, model, chosenFiles(model)));
    showResults();
    void lookAtQueue();
  } catch (error) {
    refused(error);
  } finally {
    sending = false;
  }
}

/** At the field concerned, which takes the focus; else above all. @param {unknown} error */
function refused(error) {
  if (!(error instanceof FormError || error instanceof ApiError)) throw error;
  if (error instanceof ApiError && error.status === 401) return; // the key's own field says it
  const field = error.param === null ? null : fieldOf(error.param);
  const message = error.message.replace(`${error.param}: `, "");
  if (field === null) state.notice = error.message;
  else state.refused = { [field]: message };
  changed();
  queueMicrotask(() => field !== null && document.getElementById(idOf(field))?.focus());
  say(error.message);
}

/** The form's name of a request's field, which may be written in two ways; null where the form has none. @param {string} param */
function fieldOf(param) {
  const name = param === "nag.negative_prompt" ? "negative_prompt" : param.replace(/^(loras|references)\..*/, "$1");
  return (name in form && name !== "mode") || INPUTS.some(([field]) => field === name) ? name : null;
}

/** On a phone they lie below the form. */
function showResults() {
  const results = /** @type {HTMLElement} */ (document.getElementById("results"));
  if (results.getBoundingClientRect().top > innerHeight / 2) results.scrollIntoView();
}

async function load() {
  try {
    [state.models, state.loras] = await Promise.all([listModels(), listLoras()]);
    if (!state.models.some((each) => each.id === form.model)) form.model = chosenModel()?.id ?? "";
    begin(/** @type {import("./api.js").Model} */ (chosenModel()));
    state.notice = null;
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 401)) state.notice = /** @type {Error} */ (error).message;
    changed();
    return;
  }
  state.history = await kept();
  const latest = state.history[0] ?? null;
  state.run = latest;
  changed();
  for (const run of state.history.filter(running)) void resume(run);
  if (latest !== null && !running(latest)) void show(latest);
  void lookAtQueue();
}

/** Says when nobody is there to do the work. */
async function lookAtQueue() {
  const model = chosenModel();
  if (model === undefined) return;
  try {
    const found = (await getQueue()).find((each) => each.model === model.id);
    idle = found?.workers === 0 ? `No worker serves ${model.id} at the moment: what is asked for waits for one.` : "";
  } catch {
    idle = "";
  }
  changed();
}

/** Files go where they are dropped, else to the field that suits them. @param {Event} event @param {DataTransfer | null} data */
function takeFiles(event, data) {
  const [files, model] = [filesOf(data?.files), chosenModel()];
  if (files.length === 0 || model === undefined) return;
  event.preventDefault();
  const slot = event.target instanceof Element ? event.target.closest("[data-input]") : null;
  addInputs(model, files, /** @type {HTMLElement | null} */ (slot)?.dataset.input ?? null);
}

document.addEventListener("paste", (event) => {
  if (!event.clipboardData?.types.includes("text/plain")) takeFiles(event, event.clipboardData); // a table has its image beside it
});
document.addEventListener("drop", (event) => takeFiles(event, event.dataTransfer));
document.addEventListener("dragover", (event) => {
  if (event.dataTransfer?.types.includes("Files")) event.preventDefault(); // else the browser opens the file
});

setInterval(() => {
  if (document.visibilityState === "visible" && (idle !== "" || state.history.some(running))) void lookAtQueue();
}, QUEUE_MS);
changed();
void load();
