/** The API key: kept for this tab's session, sent as a header and nowhere else. */

import { changed, state } from "./state.js";

const NAME = "nag.key";

export function key() {
  return sessionStorage.getItem(NAME);
}

/** @param {string} text */
export function useKey(text) {
  sessionStorage.setItem(NAME, text);
  state.key.refused = false;
  changed();
}

export function forgetKey() {
  sessionStorage.removeItem(NAME);
  changed();
}

/** The server has answered 401. */
export function keyRefused() {
  state.key.asked = true;
  state.key.refused = key() !== null;
  changed();
}
