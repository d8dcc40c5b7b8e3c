/** From the form to the bodies of requests. Only what differs from the model's defaults is sent. */

import { NUMBERS } from "./form.js";
import { hasStrength } from "./inputs.js";
import { LORAS_MOST, loraTexts } from "./loras.js";

/**
 * @typedef {import("./api.js").Model} Model
 * @typedef {import("./form.js").Form} Form
 * @typedef {Record<string, any>} Body
 * @typedef {{label: string, what: string, body: Body | null, why: string | null}} Asked `body` is null where the model cannot; `why` then
 */

/** Of CFG, where the model's own default is none: within what such models bear. */
const SUGGESTED_CFG = 3;
export const PICTURES = { image: 4, video: 1 };
export const SWEEP_MOST = 9;

/** A field that this page itself cannot send. */
export class FormError extends Error {
  /** @param {string} param @param {string} message */
  constructor(param, message) {
    super(message);
    this.param = param;
  }
}

/**
 * What the form asks for, one a job; all of the same seeds. Raises FormError.
 * @param {Form} form @param {Model} model @param {import("./inputs.js").InputFiles} inputs @returns {Asked[]}
 */
export function asked(form, model, inputs) {
  const strength = hasStrength(inputs) ? number(form, "strength") : null;
  const added = strength === null ? {} : { strength };
  return requests(form, model).map((each) => ({ ...each, body: each.body && { ...each.body, ...added } }));
}

/** Without the files. @param {Form} form @param {Model} model @returns {Asked[]} */
function requests(form, model) {
  if (form.mode === "compare") return compared(form, model);
  if (form.mode === "sweep") return swept(form, model);
  return [{ label: "", what: described(form, model, form.guidance), body: body(form, model, form.guidance), why: null }];
}

/** @param {Form} form @param {Model} model */
function compared(form, model) {
  needsNegative(form);
  const noCfg = model.guidance_scale.max <= 1 ? `${model.id} takes no CFG` : null;
  const noNag = model.nag === null ? `${model.id} takes no NAG` : null;
  return [
    { label: "Without", what: described(form, model, "none"), body: body(form, model, "none"), why: null },
    { label: "CFG", what: described(form, model, "cfg"), body: noCfg ? null : body(form, model, "cfg"), why: noCfg },
    { label: "NAG", what: described(form, model, "nag"), body: noNag ? null : body(form, model, "nag"), why: noNag },
  ];
}

/** @param {Form} form @param {Model} model */
function swept(form, model) {
  needsNegative(form);
  const over = form["sweep.over"];
  if (model.nag === null) throw new FormError("model", `${model.id} takes no NAG: there is nothing to sweep`);
  return sweepValues(form).map((value) => {
    const fields = { ...form, [`nag.${over}`]: String(value) };
    return { label: `${over} ${value}`, what: "", body: body(fields, model, "nag"), why: null };
  });
}

/** @param {Form} form */
function sweepValues(form) {
  const [from, to, count] = ["from", "to", "count"].map((name) => {
    const value = number(form, `sweep.${name}`);
    if (value === null) throw new FormError(`sweep.${name}`, "A number is needed.");
    return value;
  });
  if (!Number.isInteger(count) || count < 2 || count > SWEEP_MOST) {
    throw new FormError("sweep.count", `A whole number from 2 to ${SWEEP_MOST}.`);
  }
  return Array.from({ length: count }, (_, index) => Number((from + ((to - from) * index) / (count - 1)).toFixed(3)));
}

/** @param {Form} form */
function needsNegative(form) {
  if (!form.negative_prompt.trim()) throw new FormError("negative_prompt", "Say what is to be kept out of the pictures.");
}

/**
 * @param {Form} form @param {Model} model @param {string} guidance nag, cfg, both or none
 * @returns {Body}
 */
export function body(form, model, guidance) {
  /** @type {Body} */
  const sent = {};
  if (!model.default) sent.model = model.id;
  sent.prompt = form.prompt;
  Object.assign(sent, guided(form, model, guidance));
  const seed = number(form, "seed");
  if (seed !== null) sent.seed = seed;
  for (const name of ["num_inference_steps", "width", "height", "num_frames", "fps"]) {
    const value = number(form, name);
    if (value !== null && value !== /** @type {any} */ (model)[name]?.default) sent[name] = value;
  }
  const loras = loraUses(form, model);
  if (loras.length) sent.loras = loras;
  const n = number(form, "n") ?? PICTURES[model.kind];
  if (n !== 1) sent.n = n;
  return sent;
}

/** Of those that the model takes. @param {Form} form @param {Model} model */
function loraUses(form, model) {
  const texts = Object.entries(loraTexts(form)).filter(([id]) => model.loras.includes(id));
  if (texts.length > LORAS_MOST) throw new FormError("loras", `${LORAS_MOST} at the most.`);
  return texts.map(([id, text]) => {
    if (text.trim() === "") return { id };
    const scale = Number(text);
    if (!Number.isFinite(scale)) throw new FormError("loras", `The weight of ${id} is not a number: ${text}`);
    return { id, scale };
  });
}

/** @param {Form} form @param {Model} model @param {string} guidance @returns {Body} */
function guided(form, model, guidance) {
  const negative = form.negative_prompt.trim();
  if (!negative || guidance === "none") return {};
  const always = model.guidance_scale.default > 1; // a bare negative prompt is CFG's then
  const scale = cfgScale(form, model);
  const cfg = { negative_prompt: negative, ...(scale === model.guidance_scale.default ? {} : { guidance_scale: scale }) };
  const own = ownNumbers(form, model);
  if (guidance === "cfg") return cfg;
  if (guidance === "both") return { ...cfg, nag: own };
  if (always) return { nag: { negative_prompt: negative, ...own } };
  return { negative_prompt: negative, ...(Object.keys(own).length ? { nag: own } : {}) };
}

/** @param {Form} form @param {Model} model */
function ownNumbers(form, model) {
  /** @type {Record<string, number>} */
  const own = {};
  for (const name of NUMBERS) {
    const value = number(form, `nag.${name}`);
    if (value !== null && value !== /** @type {any} */ (model.nag)?.[name]) own[name] = value;
  }
  return own;
}

/** @param {Form} form @param {Model} model */
export function cfgScale(form, model) {
  const { default: usual, max } = model.guidance_scale;
  return number(form, "guidance_scale") ?? (usual > 1 ? usual : Math.min(SUGGESTED_CFG, max));
}

/** @param {Form} form @param {Model} model @param {string} guidance */
function described(form, model, guidance) {
  const plain = model.guidance_scale.default > 1 ? `CFG ${model.guidance_scale.default}` : "";
  if (guidance === "none" || !form.negative_prompt.trim()) return plain || "unguided";
  const scale = number(form, "nag.scale") ?? model.nag?.scale;
  return {
    cfg: `scale ${cfgScale(form, model)}`,
    nag: `scale ${scale}${plain ? `, beside ${plain}` : ""}`,
    both: `NAG ${scale}, CFG ${cfgScale(form, model)}`,
  }[guidance] ?? "";
}

/** Null where nothing was typed. @param {Form} form @param {string} name */
function number(form, name) {
  const text = form[name].trim();
  if (text === "") return null;
  const value = Number(text);
  if (!Number.isFinite(value)) throw new FormError(name, `Not a number: ${text}`);
  if (Math.abs(value) > Number.MAX_SAFE_INTEGER) throw new FormError(name, "Larger than a browser counts exactly; the API takes it.");
  return value;
}
