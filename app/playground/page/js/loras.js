/** The LoRAs of the form: kept as one text, the JSON of ids to weights as they were typed. */

/** Of a request. */
export const LORAS_MOST = 8;

/** @param {import("./form.js").Form} form @returns {Record<string, string>} */
export function loraTexts(form) {
  try {
    const read = JSON.parse(form.loras || "{}");
    return Object.fromEntries(Object.entries(read).filter(([, text]) => typeof text === "string"));
  } catch {
    return {};
  }
}
