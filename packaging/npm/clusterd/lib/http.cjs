'use strict';
// Requests over a control socket: docs/control-api.md of clusterd.
const http = require('node:http');

/** A request that clusterd refused, or that did not reach it. */
class ClusterdError extends Error {
  constructor(message, { status, output, warnings, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'ClusterdError';
    /** The status of HTTP; undefined where there was no answer. */
    this.status = status;
    /** After a failed reload: the last lines of the worker that made it fail. */
    this.output = output;
    /** What was logged as a warning meanwhile. */
    this.warnings = warnings;
  }
}

function open(socketPath, method, path, body, signal) {
  return new Promise((resolve, reject) => {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const headers = { host: 'localhost', connection: 'close' };
    if (text !== undefined) {
      headers['content-type'] = 'application/json';
      headers['content-length'] = Buffer.byteLength(text);
    }
    const request = http.request({ socketPath, method, path, headers, signal, agent: false }, resolve);
    request.on('error', (cause) => {
      if (cause.name === 'AbortError') return reject(cause);
      const failed = new ClusterdError(`cannot ask ${socketPath}: ${cause.message}`, { cause });
      failed.code = cause.code;
      reject(failed);
    });
    request.end(text);
  });
}

async function refused(response) {
  const answer = parsed(await textOf(response));
  const { error, output, warnings } = answer ?? {};
  const message = error ?? `clusterd answered with ${response.statusCode}`;
  return new ClusterdError(message, { status: response.statusCode, output, warnings });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function textOf(response) {
  response.setEncoding('utf8');
  let text = '';
  for await (const piece of response) text += piece;
  return text;
}

/** One request; its answer as an object. */
async function ask(socketPath, method, path, body) {
  const response = await open(socketPath, method, path, body);
  if (response.statusCode !== 200) throw await refused(response);
  return JSON.parse(await textOf(response));
}

/** The lines of an answer of JSON lines, for as long as it lasts. */
async function* lines(socketPath, path, signal) {
  const response = await open(socketPath, 'GET', path, undefined, signal);
  if (response.statusCode !== 200) throw await refused(response);
  response.setEncoding('utf8');
  let rest = '';
  for await (const piece of response) {
    const whole = (rest + piece).split('\n');
    rest = whole.pop();
    for (const line of whole) if (line) yield JSON.parse(line);
  }
}

module.exports = { ClusterdError, ask, lines };
