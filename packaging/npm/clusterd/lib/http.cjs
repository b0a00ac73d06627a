'use strict';
// Requests over a control socket: docs/control-api.md of clusterd.
const http = require('node:http');

/** How long clusterd may take to answer a request that changes nothing, or to begin an answer of lines, in milliseconds. */
const READ_MS = 10_000;
/** The longest answer that is read, in characters. */
const ANSWER_MAX = 16 << 20;
/** The longest line of an answer of lines, in characters: clusterd passes on lines of log files of at most 8 MiB. */
const LINE_MAX = 9 << 20;

/** A request that clusterd refused, or that did not reach it. */
class ClusterdError extends Error {
  constructor(message, { status, code, output, warnings, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'ClusterdError';
    /** The status of HTTP; undefined where there was no answer. */
    this.status = status;
    /** That of the system call that failed (`ENOENT`, `EACCES`), or `ETIMEDOUT`. */
    this.code = code;
    /** After a failed reload: the last lines of the worker that made it fail. */
    this.output = output;
    /** What was logged as a warning meanwhile. */
    this.warnings = warnings;
  }
}

/** What the errors of connect(2) mean here. */
const MEANS = {
  ENOENT: (path) => `no deployment runs at ${path}`,
  ECONNREFUSED: (path) => `the deployment at ${path} has ended`,
  EACCES: (path) => `${path} belongs to another user: clusterd answers root and the user who started it`,
};

function unreachable(socketPath, cause) {
  const message = MEANS[cause.code]?.(socketPath) ?? `cannot ask clusterd at ${socketPath}: ${cause.message}`;
  return new ClusterdError(message, { code: cause.code, cause });
}

/** Whether the error says that nobody listens at a socket: its deployment has ended. */
const hasEnded = (error) => error.code === 'ENOENT' || error.code === 'ECONNREFUSED';

/**
 * Sends a request. `consume` gets the response; until it comes to its result the connection is closed after `timeout` milliseconds,
 * and when `signal` aborts.
 */
function exchange(socketPath, { method = 'GET', path, body, signal, timeout }, consume) {
  return new Promise((resolve, reject) => {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const headers = { host: 'localhost', connection: 'close' };
    if (text !== undefined) {
      headers['content-type'] = 'application/json';
      headers['content-length'] = Buffer.byteLength(text);
    }
    const request = http.request({ socketPath, method, path, headers, agent: false });
    const settle = (finish, result) => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
      finish(result);
    };
    const failed = (cause) => settle(reject, cause instanceof ClusterdError ? cause : unreachable(socketPath, cause));
    const abort = () => {
      settle(reject, signal.reason);
      request.destroy();
    };
    const timer = setTimeout(() => {
      const message = `clusterd at ${socketPath} did not answer ${method} ${path} within ${timeout / 1000} s`;
      failed(new ClusterdError(message, { code: 'ETIMEDOUT' }));
      request.destroy();
    }, timeout);
    request.on('error', failed);
    request.on('response', (response) => consume(response).then((result) => settle(resolve, result), failed));
    if (signal?.aborted) return abort();
    signal?.addEventListener('abort', abort, { once: true });
    return request.end(text);
  });
}

async function textOf(response) {
  response.setEncoding('utf8');
  let text = '';
  for await (const piece of response) {
    text += piece;
    if (text.length > ANSWER_MAX) throw new ClusterdError(`the answer has more than ${ANSWER_MAX} characters`);
  }
  return text;
}

function refused(status, text) {
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    // The status has to do.
  }
  const { error, output, warnings } = answer ?? {};
  return new ClusterdError(error ?? `clusterd answered with status ${status}`, { status, output, warnings });
}

async function successful(response) {
  if (response.statusCode !== 200) throw refused(response.statusCode, await textOf(response));
  return response;
}

/** One request; the text of its answer. */
function askText(socketPath, method, path, { body, timeout = READ_MS } = {}) {
  return exchange(socketPath, { method, path, body, timeout }, async (response) => textOf(await successful(response)));
}

/** One request; its answer as an object. */
async function ask(socketPath, method, path, options) {
  return JSON.parse(await askText(socketPath, method, path, options));
}

/** The lines of an answer of JSON lines, for as long as it lasts. Nothing is read ahead beyond the buffers of the connection. */
async function* lines(socketPath, path, signal) {
  const response = await exchange(socketPath, { path, signal, timeout: READ_MS }, successful);
  const abort = () => response.destroy();
  signal.addEventListener('abort', abort, { once: true });
  response.setEncoding('utf8');
  let rest = '';
  try {
    for await (const piece of response) {
      rest += piece;
      if (rest.length > LINE_MAX) throw new ClusterdError(`a line of ${path} has more than ${LINE_MAX} characters`);
      if (!piece.includes('\n')) continue;
      const whole = rest.split('\n');
      rest = whole.pop();
      for (const line of whole) if (line) yield JSON.parse(line);
    }
  } catch (cause) {
    if (signal.aborted) throw signal.reason;
    throw cause instanceof ClusterdError || cause instanceof SyntaxError ? cause : unreachable(socketPath, cause);
  } finally {
    signal.removeEventListener('abort', abort);
    response.destroy();
  }
}

module.exports = { ClusterdError, ask, askText, hasEnded, lines };
