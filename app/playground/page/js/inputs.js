/** The files that a request starts from, by their field in the request: chosen, and uploaded when it is sent. */

import { ApiError, addFile, deleteFile } from "./api.js";
import { changed, say, state } from "./state.js";

/**
 * @typedef {import("./api.js").Model} Model
 * @typedef {{name: string, blob: Blob}} InputFile
 * @typedef {Record<string, InputFile[]>} InputFiles
 */

/** Fields and their labels, in the order of the form. @type {[string, string][]} */
export const INPUTS = [
  ["references", "References"], ["first_frame", "First frame"], ["last_frame", "Last frame"], ["image", "Image"], ["mask", "Mask"],
  ["video", "Video"],
];
/** The fields for a file that was put nowhere in particular; the first with room is used, else the first is filled anew. */
const FOR_IMAGES = ["references", "first_frame", "image", "last_frame"];

/** @param {string} field */
export const labelOf = (field) => INPUTS.find(([name]) => name === field)?.[1] ?? field;

/** The most files of a field that the model takes. @param {Model} model @param {string} field */
export const limitOf = (model, field) => model.inputs[field]?.max ?? 0;

/** Whether the model changes what is chosen by a share of the steps. @param {InputFiles} files */
export const hasStrength = (files) => "image" in files || "video" in files;

/** The chosen files that the model takes, a mask with an image alone. @param {Model} model @returns {InputFiles} */
export function chosenFiles(model) {
  const { mask, ...files } = Object.fromEntries(
    Object.entries(state.inputs).filter(([field, chosen]) => chosen.length > 0 && limitOf(model, field) > 0),
  );
  return mask !== undefined && "image" in files ? { ...files, mask } : files;
}

/** Whether the model starts from such a file. @param {Model} model @param {string} type a media type */
export function takes(model, type) {
  return fieldFor(model, type) !== null;
}

/**
 * Adds files to a field, or each to the field that suits it. A field for one file gets the last.
 * @param {Model} model @param {InputFile[]} files @param {string | null} field
 */
export function addInputs(model, files, field = null) {
  for (const file of files) {
    const into = field ?? fieldFor(model, file.blob.type);
    if (into === null) {
      state.notice = `${file.name}: ${model.id} does not start from such a file.`;
      say(state.notice);
      continue;
    }
    const [most, before] = [limitOf(model, into), state.inputs[into] ?? []];
    state.notice = null;
    delete state.refused[into];
    if (most > 1 && before.length >= most) {
      state.refused = { ...state.refused, [into]: `${model.id} takes ${most} at the most.` };
      say(state.refused[into]);
      continue;
    }
    state.inputs = { ...state.inputs, [into]: most > 1 ? [...before, file] : [file] };
    say(`${file.name} added: ${labelOf(into)}`);
  }
  changed();
}

/** @param {string} field @param {InputFile} file */
export function removeInput(field, file) {
  state.inputs = { ...state.inputs, [field]: state.inputs[field].filter((other) => other !== file) };
  delete state.refused[field];
  say(`${file.name} removed: ${labelOf(field)}`);
  changed();
}

/** Puts files that another model took into a field of this one. @param {Model} model */
export function moveInputs(model) {
  const kept = chosenFiles(model);
  const others = Object.entries(state.inputs).filter(([field]) => !(field in kept) && field !== "mask");
  state.inputs = kept;
  for (const file of others.flatMap(([, files]) => files)) {
    const field = fieldFor(model, file.blob.type);
    if (field !== null && (state.inputs[field] ?? []).length < limitOf(model, field)) addInputs(model, [file], field);
  }
}

/** A model that takes both references and an image takes one of them at a time. @param {Model} model @param {string} type */
function fieldFor(model, type) {
  const fields = (type.startsWith("video/") ? ["video"] : FOR_IMAGES).filter(
    (field) => limitOf(model, field) > 0 && !(field === "image" && limitOf(model, "references") > 0),
  );
  return fields.find((field) => (state.inputs[field] ?? []).length < limitOf(model, field)) ?? fields[0] ?? null;
}

/**
 * Uploads the files and returns the fields of a request that name them. `ids` gets the id of each upload.
 * Raises ApiError at the field of the file.
 * @param {InputFiles} inputs @param {string[]} ids
 */
export async function upload(inputs, ids) {
  /** @type {Record<string, string | string[]>} */
  const fields = {};
  for (const [field, files] of Object.entries(inputs)) {
    const own = [];
    for (const file of files) {
      try {
        own.push(await addFile(file.blob, file.name));
      } catch (error) {
        if (!(error instanceof ApiError) || error.param !== "file") throw error;
        const message = `${file.name}: ${error.message.replace("file: ", "")}`;
        throw new ApiError(error.status, { message, param: field, code: error.code });
      }
      ids.push(own[own.length - 1]);
    }
    fields[field] = field === "references" ? own : own[0];
  }
  return fields;
}

/** Removes uploads whose jobs have copies of their own; the server removes the others in time. @param {string[]} ids */
export async function removeUploads(ids) {
  await Promise.all(ids.map((id) => deleteFile(id).catch(() => {})));
}
