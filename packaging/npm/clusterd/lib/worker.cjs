'use strict';
// For the code that runs as a worker or an agent of clusterd. Without clusterd it says so, and sends nothing.
const { moveWebSockets } = require('./websockets.cjs');
const { env } = process;

/** Whether clusterd started this process. */
const isClusterd = env.CLUSTERD_APP !== undefined;
const number = (text) => (text === undefined ? undefined : Number(text));
/** The app's name, this worker's slot (from 0), and the generation, which a reload counts up. */
const app = env.CLUSTERD_APP;
const slot = number(env.CLUSTERD_SLOT);
const generation = number(env.CLUSTERD_GENERATION);

/** How long an undelivered message may take to be reported, in milliseconds. */
const REPORT_MS = 250;
/** What waits for the word of clusterd that a message did not arrive, by its id. */
const waiting = new Map();
const listeners = { message: new Set(), event: new Set() };
let hears = false;
let lastId = 0;

function hear(raw) {
  const envelope = raw?.clusterd;
  if (typeof envelope !== 'object' || envelope === null) return;
  if (envelope.undelivered !== undefined) waiting.get(envelope.id)?.(envelope);
  else if (envelope.from !== undefined) for (const listener of listeners.message) listener(raw.message, envelope.from);
  else if (envelope.event !== undefined) for (const listener of listeners.event) listener(envelope);
}

/** A listener of the process keeps it alive: there is one while somebody waits for something. */
function hearWhatIsNeeded() {
  const needed = waiting.size + listeners.message.size + listeners.event.size > 0;
  if (needed === hears) return;
  hears = needed;
  if (needed) process.on('message', hear);
  else process.off('message', hear);
}

/**
 * Sends a message to 'agent', 'all', 'random', {slot} or {pid} of this app. Resolves once it is on its way; rejects where
 * clusterd says that a receiver did not get it.
 */
function send(to, message) {
  if (!isClusterd || !process.send) {
    return Promise.reject(new Error('clusterd: this process has no channel to clusterd'));
  }
  lastId += 1;
  const id = `n${lastId}`;
  return new Promise((resolve, reject) => {
    const settle = (finish, value) => {
      clearTimeout(timer);
      waiting.delete(id);
      hearWhatIsNeeded();
      finish(value);
    };
    const timer = setTimeout(() => settle(resolve), REPORT_MS);
    waiting.set(id, ({ undelivered, reason }) => {
      const failed = new Error(`clusterd: ${reason ?? 'the message did not arrive'}`);
      settle(reject, Object.assign(failed, { undelivered }));
    });
    hearWhatIsNeeded();
    process.send({ clusterd: { to, id }, message }, (error) => error && settle(reject, error));
  });
}

function listen(kind, listener) {
  listeners[kind].add(listener);
  hearWhatIsNeeded();
  return () => {
    listeners[kind].delete(listener);
    hearWhatIsNeeded();
  };
}

/** Calls the listener with each message and its sender: 'agent', or {slot, pid}. Returns a function that ends that. */
const onMessage = (listener) => listen('message', listener);

/** In an agent: calls the listener with what happens to the app's workers. Returns a function that ends that. */
const onEvent = (listener) => listen('event', listener);

/** This process is ready: an agent, or a worker of an app with `ready = "message"`. False where nobody waits for that. */
function ready() {
  if (!isClusterd || !process.send) return false;
  process.send('ready');
  return true;
}

module.exports = { isClusterd, app, slot, generation, ready, send, onMessage, onEvent, moveWebSockets };
