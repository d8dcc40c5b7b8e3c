/** What was typed, as it was typed; "" is the model's default. Named as in the request. Kept as a draft. */

import { moveInputs } from "./inputs.js";
import { changed, state } from "./state.js";

const DRAFT = "nag.draft";
export const NUMBERS = ["scale", "tau", "alpha", "end", "scale_decay", "start"];
/** What one model's numbers mean, another's may not. */
const OF_A_MODEL = [
  "num_inference_steps", "guidance_scale", "width", "height", "num_frames", "fps", "loras", "strength",
  ...NUMBERS.map((each) => `nag.${each}`),
];
/** @typedef {Record<string, string>} Form */

/** @type {Form} */
const EMPTY = {
  mode: "generate", guidance: "nag", model: "", prompt: "", negative_prompt: "", seed: "", n: "",
  ...Object.fromEntries(OF_A_MODEL.map((name) => [name, ""])),
  "sweep.over": "scale", "sweep.from": "1", "sweep.to": "11", "sweep.count": "6",
};
/** @type {Record<string, [string, string]>} */
export const SWEEPS = { scale: ["1", "11"], tau: ["1", "6"], alpha: ["0", "1"], end: ["0", "1"], scale_decay: ["0", "1"], start: ["0", "0.9"] };

/** @type {Form} */
export const form = { ...EMPTY, ...draft() };

function draft() {
  try {
    const kept = JSON.parse(localStorage.getItem(DRAFT) ?? "{}");
    return Object.fromEntries(Object.entries(kept).filter(([name, text]) => name in EMPTY && typeof text === "string"));
  } catch {
    return {};
  }
}

/** @param {Form} fields */
export function fill(fields) {
  for (const [name, text] of Object.entries(fields)) {
    form[name] = text;
    delete state.refused[name];
  }
  localStorage.setItem(DRAFT, JSON.stringify(form));
  changed();
}

export function chosenModel() {
  return state.models.find((each) => each.id === form.model) ?? state.models.find((each) => each.default);
}

/** @param {string} id */
export function chooseModel(id) {
  const before = chosenModel();
  const untouched = before !== undefined && Object.entries(example(before)).every(([name, text]) => form[name] === text);
  fill({ model: id, n: "", ...Object.fromEntries(OF_A_MODEL.map((name) => [name, ""])) });
  const now = chosenModel();
  if (now !== undefined) moveInputs(now);
  if (untouched && now !== undefined) fill(example(now));
}

/** For a newcomer, something to press the button on. @param {import("./api.js").Model} model */
export function begin(model) {
  if (localStorage.getItem(DRAFT) === null) fill({ ...example(model), mode: model.nag === null ? "generate" : "compare" });
}

/** Something to start with, which the model can do. @param {import("./api.js").Model} model */
export function example(model) {
  return model.id.startsWith("shapes-")
    ? { prompt: "a shape", negative_prompt: "a red shape", seed: "9" }
    : { prompt: "a portrait of an old sailor, natural light", negative_prompt: "glasses, hat", seed: "7" };
}
