'use strict';
// For the code that runs as a worker or an agent of clusterd. Without clusterd it says so, and sends nothing.
const { env } = process;

/** Whether clusterd started this process. */
const isClusterd = env.CLUSTERD_APP !== undefined;
const number = (text) => (text === undefined ? undefined : Number(text));
/** The app's name, this worker's slot (from 0), and the generation, which a reload counts up. */
const app = env.CLUSTERD_APP;
const slot = number(env.CLUSTERD_SLOT);
const generation = number(env.CLUSTERD_GENERATION);

/** What waits for the word of clusterd that a message did not arrive, by its id. */
const waiting = new Map();
const listeners = new Set();
let listening = false;
let lastId = 0;
/** How long an undelivered message may take to be reported, in milliseconds. */
const REPORT_MS = 250;

function listen() {
  if (listening) return;
  listening = true;
  process.on('message', (raw) => {
    const envelope = raw?.clusterd;
    if (typeof envelope !== 'object' || envelope === null) return;
    if (envelope.undelivered !== undefined) {
      waiting.get(envelope.id)?.(envelope);
      return;
    }
    if (envelope.from === undefined) return;
    for (const listener of listeners) listener(raw.message, envelope.from);
  });
  // Messages alone keep no process alive.
  if (listeners.size === 0) process.channel?.unref();
}

/**
 * Sends a message to 'agent', 'all', 'random', {slot} or {pid} of this app. Resolves once it is on its way; rejects where
 * clusterd says that a receiver did not get it.
 */
function send(to, message) {
  if (!isClusterd || !process.send) {
    return Promise.reject(new Error('clusterd: this process has no channel to clusterd'));
  }
  listen();
  const id = `n${++lastId}`;
  return new Promise((resolve, reject) => {
    const settle = (finish, value) => {
      clearTimeout(timer);
      waiting.delete(id);
      finish(value);
    };
    const timer = setTimeout(() => settle(resolve), REPORT_MS);
    timer.unref();
    waiting.set(id, ({ undelivered, reason }) => {
      const failed = new Error(`clusterd: ${reason ?? 'the message did not arrive'}`);
      settle(reject, Object.assign(failed, { undelivered }));
    });
    process.send({ clusterd: { to, id }, message }, (error) => error && settle(reject, error));
  });
}

/** Calls the listener with each message and its sender: 'agent', or {slot, pid}. Returns a function that ends that. */
function onMessage(listener) {
  listeners.add(listener);
  listen();
  process.channel?.ref();
  return () => listeners.delete(listener);
}

module.exports = { isClusterd, app, slot, generation, send, onMessage };
