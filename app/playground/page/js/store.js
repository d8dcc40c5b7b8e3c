/** Runs in the browser's own database, the newest of them; in memory alone where there is none. */

/** @typedef {import("./runs.js").Run} Run */

export const MOST = 40;
/** A run with more bytes of files is kept without them. */
const INPUTS_MOST_BYTES = 16 * 2 ** 20;
const NAME = "nag-playground";
const RUNS = "runs";

/** @type {Promise<IDBDatabase | null> | null} */
let opened = null;

function open() {
  opened ??= new Promise((done) => {
    try {
      const asking = indexedDB.open(NAME, 1);
      asking.onupgradeneeded = () => asking.result.createObjectStore(RUNS, { keyPath: "id" });
      asking.onsuccess = () => done(asking.result);
      asking.onerror = () => done(null);
    } catch {
      done(null);
    }
  });
  return opened;
}

/**
 * @template T @param {IDBTransactionMode} mode @param {(runs: IDBObjectStore) => IDBRequest<T>} act
 * @returns {Promise<T | null>}
 */
async function within(mode, act) {
  const database = await open();
  if (database === null) return null;
  return new Promise((done) => {
    const transaction = database.transaction(RUNS, mode);
    const asking = act(transaction.objectStore(RUNS));
    transaction.oncomplete = () => done(asking.result);
    transaction.onabort = () => done(null); // no room left: the page goes on without
  });
}

/** Newest first. @returns {Promise<Run[]>} */
export async function kept() {
  const runs = (await within("readonly", (store) => store.getAll())) ?? [];
  return runs.sort((a, b) => b.at - a.at);
}

/** @param {Run} run */
export async function keep(run) {
  const bytes = Object.values(run.inputs ?? {}).flat().reduce((sum, file) => sum + file.blob.size, 0);
  await within("readwrite", (store) => store.put(bytes > INPUTS_MOST_BYTES ? { ...run, inputs: {} } : run));
}

/** @param {string} id */
export async function drop(id) {
  await within("readwrite", (store) => store.delete(id));
}

export async function dropAll() {
  await within("readwrite", (store) => store.clear());
}
