'use strict';
// Answers of lines that go on, of one deployment. After a break, as when a master is replaced, they go on after the last line.
const path = require('node:path');
const { setTimeout: pause } = require('node:timers/promises');
const { ClusterdError, askText, hasEnded, lines } = require('./http.cjs');

/** Breaks in a row, without a line in between, after which a deployment is given up. */
const BREAKS_MAX = 50;
/** The pause after a break, in milliseconds. */
const AFTER_BREAK_MS = 200;

/** The name of the deployment with this control socket. */
const nameOf = (socket) => path.basename(socket, '.sock');

/**
 * The lines until the deployment ends, or (without `follow`) those that there are. `pathAfter` gives the request for what comes after a
 * line; undefined: the first one.
 */
async function* followed(socket, pathAfter, { follow, signal }) {
  let [breaks, opened, last] = [0, false, undefined];
  while (true) {
    let broken;
    try {
      for await (const line of lines(socket, pathAfter(last), signal)) {
        [breaks, opened, last] = [0, true, line];
        yield line;
      }
      if (!follow) return;
    } catch (error) {
      if (signal.aborted || hasEnded(error)) return;
      // A master that has just begun may have no place yet for all who come back.
      const willPass = error instanceof ClusterdError && (error.status === undefined || (opened && error.status === 503));
      if (!follow || !willPass) throw error;
      broken = error;
    }
    breaks += 1;
    if (breaks > BREAKS_MAX) {
      const message = `${nameOf(socket)}: the connection broke ${BREAKS_MAX} times in a row`;
      throw new ClusterdError(message, { code: broken?.code, cause: broken });
    }
    await pause(AFTER_BREAK_MS, undefined, { signal }).catch(() => {});
    if (signal.aborted) return;
  }
}

/** Events of one deployment after this id; undefined: first all that are kept. */
async function* eventsOf(socket, { apps, after, follow, signal }) {
  const pathAfter = (last) => {
    const query = new URLSearchParams({ follow: String(follow) });
    for (const app of apps) query.append('app', app);
    const id = last?.id ?? after;
    if (id !== undefined) query.set('after', String(id));
    return `/v1/events?${query}`;
  };
  for await (const event of followed(socket, pathAfter, { follow, signal })) yield { ...event, deployment: nameOf(socket) };
}

/** The id of the last event that there was; undefined if there was none. */
async function lastId(socket) {
  const text = (await askText(socket, 'GET', '/v1/events')).trimEnd();
  return text === '' ? undefined : JSON.parse(text.slice(text.lastIndexOf('\n') + 1)).id;
}

/** Lines of logs of one deployment: the last `count` of each file first. */
function logsOf(socket, { apps, count, type, slot, follow, signal }) {
  const pathAfter = (last) => {
    const query = new URLSearchParams({ lines: String(last === undefined ? count : 0), follow: String(follow) });
    for (const app of apps) query.append('app', app);
    if (type !== undefined) query.set('type', type);
    if (slot !== undefined) query.set('slot', String(slot));
    return `/v1/logs?${query}`;
  };
  return followed(socket, pathAfter, { follow, signal });
}

module.exports = { eventsOf, lastId, logsOf, nameOf };
