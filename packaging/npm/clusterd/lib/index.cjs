'use strict';
// The JavaScript API of clusterd: a client of the control sockets of one home. Where PM2 has the same thing, its name is PM2's.
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { setTimeout: pause } = require('node:timers/promises');
const { binaryPath, run } = require('./binary.cjs');
const { eventsOf, lastId, logsOf, nameOf } = require('./follow.cjs');
const { ClusterdError, ask, hasEnded } = require('./http.cjs');
const { startArguments } = require('./options.cjs');
const { Stream } = require('./stream.cjs');

/** How long a request that changes something may take, in milliseconds, unless `connect` says otherwise. */
const CHANGE_MS = 600_000;
/** The longest time-out that timers have, in milliseconds. */
const TIMEOUT_MS_MAX = 2 ** 31 - 1;
/** Looks at a deployment that is about to end, or whose master is being replaced. */
const LOOKS_MAX = 100;
/** The pause between two of them, in milliseconds. */
const LOOK_EVERY_MS = 20;
/** How often `stay` looks for deployments that have started, in milliseconds. */
const STAY_LOOK_MS = 500;

const of = (name, verb) => `/v1/apps/${encodeURIComponent(name)}${verb ? `/${verb}` : ''}`;
const listOf = (value) => (value === undefined ? [] : [value].flat());
const dependsOn = (one, other) => one.socket === other.socket && one.after.includes(other.app);

/** Stages of apps: each app comes in a later one than all that depend on it. After reloads of single apps, two may depend on each other. */
function dependentsFirst(apps) {
  const stages = [];
  for (let left = apps; left.length > 0; ) {
    const free = left.filter((one) => !left.some((other) => dependsOn(other, one)));
    const stage = free.length > 0 ? free : left;
    stages.push(stage);
    left = left.filter((one) => !stage.includes(one));
  }
  return stages;
}

/** Whether an app is meant by one of the words of a target. A `g` or `y` of a pattern would make each answer depend on the last. */
function isMeant(app, wanted) {
  if (wanted instanceof RegExp) return new RegExp(wanted.source, wanted.flags.replace(/[gy]/g, '')).test(app.name);
  return wanted === 'all' || app.name === wanted || String(app.id) === String(wanted) || app.namespace === wanted;
}

class Clusterd {
  #timeout;
  #streams = new Set();
  /** What `events` has to know before this client changes anything. */
  #positions = new Set();

  constructor({ home, timeout = CHANGE_MS } = {}) {
    if (!(timeout > 0 && timeout <= TIMEOUT_MS_MAX)) {
      throw new TypeError(`clusterd: timeout is a number of milliseconds up to ${TIMEOUT_MS_MAX}, not ${timeout}`);
    }
    this.home = path.resolve(home ?? process.env.CLUSTERD_HOME ?? path.join(os.homedir(), '.clusterd'));
    this.#timeout = timeout;
  }

  /** The control sockets that are there; one may be of a deployment that was killed. */
  sockets() {
    const folder = path.join(this.home, 'run');
    try {
      return fs.readdirSync(folder).filter((name) => name.endsWith('.sock')).sort().map((name) => path.join(folder, name));
    } catch (cause) {
      if (cause.code === 'ENOENT') return [];
      throw new ClusterdError(`cannot read ${folder}: ${cause.message}`, { code: cause.code, cause });
    }
  }

  /** Every deployment that runs. */
  async deployments() {
    const found = await Promise.all(this.sockets().map((socket) => deploymentAt(socket)));
    return found.filter((deployment) => deployment !== undefined);
  }

  /** Every app that runs, as the control API has it. */
  async apps() {
    const deployments = await this.deployments();
    return deployments.flatMap(({ name, apps }) => apps.map((app) => ({ ...app, deployment: name })));
  }

  /** One object for each worker, with PM2's fields: pid, name, pm_id, monit, pm2_env. */
  async list() {
    return JSON.parse(await this.#run(['jlist']));
  }

  /** The same for the workers of one app, by its name or id. */
  async describe(target) {
    const all = await this.list();
    return all.filter((worker) => target === 'all' || worker.name === target || String(worker.pm_id) === String(target));
  }

  /**
   * Starts a script, a command or a configuration file, or an app that was stopped; resolves when it is ready: to its
   * workers, as `list` has them.
   */
  async start(what, more = {}) {
    if (typeof what !== 'object') {
      const found = typeof what === 'number' || Object.keys(more).length === 0 ? (await this.#find(what)).found : [];
      if (found.length > 0) return this.#each(found, 'start');
      if (typeof what === 'number') throw new ClusterdError(`there is no app with the id ${what}`, { status: 404 });
    }
    const isFile = typeof what === 'string' && /\.(toml|json|ya?ml|config\.[cm]?js)$/.test(what);
    const typed = isFile ? ['start', what] : startArguments(typeof what === 'object' ? what : { script: what, ...more });
    if (isFile && Object.keys(more).length > 0) throw new TypeError('clusterd: a file takes no further options');
    const before = new Set((await this.list()).map((worker) => worker.pid));
    await this.#run(typed);
    return (await this.list()).filter((worker) => !before.has(worker.pid));
  }

  /**
   * Replaces every worker, the new ones first; rejects where the new code does not get ready, and the old one stays. Of several apps, one
   * that depends on others follows them, and is left out where they fail.
   */
  async reload(target) {
    const found = await this.#wanted(target);
    return this.#each(found, 'reload', undefined, dependentsFirst(found).reverse());
  }

  /** The generations of an app that ran, the last one first. */
  async releases(name) {
    const [{ socket, app }] = await this.#wanted(name);
    return (await ask(socket, 'GET', of(app, 'releases'))).releases;
  }

  /** Goes back to the folder and configuration of the generation that served before, or of `to`; rejects where there is none. */
  rollback(target, { to } = {}) {
    return this.#change(target, 'rollback', { to });
  }

  /** Stops the workers, then starts them again. */
  restart(target) {
    return this.#change(target, 'restart');
  }

  /** Finishes open connections, then ends the workers; of several apps, those that others depend on last. `now`: at once. */
  async stop(target, { now = false } = {}) {
    const found = await this.#wanted(target);
    return this.#each(found, 'stop', { now }, now ? [found] : dependentsFirst(found));
  }

  /** The same, and removes the app, also one of a deployment that was killed. */
  async delete(target, { now = false } = {}) {
    const words = [];
    for (const wanted of listOf(target)) {
      if (wanted instanceof RegExp) words.push(...(await this.#wanted(wanted)).map(({ app }) => app));
      else words.push(String(wanted));
    }
    const names = (await this.#find(target)).found.map(({ app }) => app);
    await this.#run(['delete', ...(now ? ['--now'] : []), '--', ...words]);
    return (names.length > 0 ? names : words).map((name) => ({ name, ok: true, message: `${name} is deleted` }));
  }

  /** The number of workers: 4, "+2", "-1", "max", "50%", "auto". */
  scale(target, workers) {
    return this.#change(target, 'scale', { workers: String(workers) });
  }

  /** Sends a signal to every worker. */
  sendSignal(signal, target) {
    return this.#change(target, 'signal', { signal: String(signal) });
  }

  /** Counts restarts from 0. */
  reset(target) {
    return this.#change(target, 'reset');
  }

  /** Calls an action that workers offer (`@pm2/io`), of one worker or of all; `message` has what each has answered. */
  trigger(target, action, parameter, { slot } = {}) {
    return this.#change(target, 'trigger', { action, parameter, slot });
  }

  /** Empties log files. */
  flush(target = 'all') {
    return this.#change(target, 'logs/flush');
  }

  /** Opens every log file again, after they were moved. */
  async reloadLogs() {
    const deployments = await this.deployments();
    if (deployments.length === 0) throw this.#nothingRuns();
    const reopened = deployments.map(({ socket }) => ask(socket, 'POST', '/v1/logs/reopen', { timeout: this.#timeout }));
    return (await Promise.all(reopened)).map((done, at) => ({ name: deployments[at].name, ...done }));
  }

  /** The environment of an app's workers. */
  async env(name) {
    const [{ socket, app }] = await this.#wanted(name);
    return (await ask(socket, 'GET', of(app, 'env'))).env;
  }

  /** Lines that workers print: the last ones, then with `follow` new ones, until the deployments have ended. */
  logs({ app, lines: count = 15, follow = false, type, slot, signal } = {}) {
    const begin = async (add, ending) => {
      const options = { apps: listOf(app), count, type, slot, follow, signal: ending };
      for (const socket of await this.#socketsOf(app)) add(logsOf(socket, options));
    };
    return this.#stream(begin, signal);
  }

  /**
   * What happens from this call on, in the deployments that run: until the last of them has ended; with `stay` also in those that
   * start later. Or what came after the event with the id `after`, or (`kept`) what clusterd has kept first. Without `follow`: only
   * what it has kept.
   */
  events({ app, after, follow = true, kept = !follow, stay = false, signal } = {}) {
    if (stay && !follow) throw new TypeError('clusterd: events with stay follow');
    const options = { apps: listOf(app), follow };
    const began = this.#beginEvents({ app, after, kept, stay });
    this.#positions.add(began);
    const settled = () => this.#positions.delete(began);
    began.then(settled, settled);
    const begin = async (add, ending) => {
      const followed = new Set();
      const source = async function* source(socket, from) {
        followed.add(socket);
        yield* eventsOf(socket, { ...options, after: from, signal: ending });
        followed.delete(socket);
      };
      for (const [socket, from] of await began) add(source(socket, from));
      while (stay && !ending.aborted) {
        for (const socket of this.sockets()) if (!followed.has(socket)) add(source(socket));
        await pause(STAY_LOOK_MS, undefined, { signal: ending }).catch(() => {});
      }
    };
    return this.#stream(begin, signal);
  }

  /** Ends what follows (`logs`, `events`). Nothing else is held open. */
  disconnect() {
    for (const stream of this.#streams) stream.return();
  }

  #stream(begin, signal) {
    const stream = new Stream(
      (add, ending) => {
        this.#streams.add(stream);
        return begin(add, ending);
      },
      { signal, whenOver: () => this.#streams.delete(stream) },
    );
    return stream;
  }

  /** The sockets to follow, each with the id of the event that was the last. */
  async #beginEvents({ app, after, kept, stay }) {
    const sockets = stay ? this.sockets() : await this.#socketsOf(app);
    if (typeof after === 'number' && sockets.length > 1) {
      throw new TypeError('clusterd: ids count for one deployment; with several, after is an object of ids by deployment');
    }
    const position = async (socket) => {
      const given = typeof after === 'object' ? after[nameOf(socket)] : after;
      if (given !== undefined || kept) return [socket, given];
      try {
        return [socket, await lastId(socket)];
      } catch (error) {
        if (hasEnded(error)) return [socket, undefined];
        throw error;
      }
    };
    return Promise.all(sockets.map(position));
  }

  /** The sockets of the deployments with these apps; without any: of all. There is at least one. */
  async #socketsOf(app) {
    if (app !== undefined) return [...new Set((await this.#wanted(listOf(app))).map(({ socket }) => socket))];
    const sockets = (await this.deployments()).map(({ socket }) => socket);
    if (sockets.length === 0) throw this.#nothingRuns();
    return sockets;
  }

  #nothingRuns() {
    return new ClusterdError(`no deployment runs in ${this.home}`, { code: 'ENOENT', status: 404 });
  }

  async #run([verb, ...rest]) {
    await Promise.allSettled(this.#positions);
    return run([verb, '--home', this.home, ...rest], { timeout: this.#timeout });
  }

  /** Where the apps of a target are, and the names of all. */
  async #find(target) {
    const targets = listOf(target);
    const deployments = await this.deployments();
    const all = deployments.flatMap(({ socket, apps }) => apps.map((app) => ({ socket, app })));
    const found = all.filter(({ app }) => targets.some((wanted) => isMeant(app, wanted)));
    return {
      found: found.map(({ socket, app }) => ({ socket, app: app.name, after: app.depends_on ?? [] })),
      names: all.map(({ app }) => app.name),
    };
  }

  async #wanted(target) {
    const { found, names } = await this.#find(target);
    if (found.length > 0) return found;
    if (names.length === 0) throw this.#nothingRuns();
    throw new ClusterdError(`there is no app ${listOf(target).join(', ')}; there are: ${names.join(', ')}`, { status: 404 });
  }

  async #each(found, verb, body, stages = [found]) {
    await Promise.allSettled(this.#positions);
    const results = new Map();
    const failed = new Map();
    const change = async (one) => {
      // Only a reload goes from an app to those that depend on it.
      const missing = [...failed.keys()].find((other) => dependsOn(one, other));
      if (missing) throw new ClusterdError(`${one.app}: not reloaded: ${missing.app}, on which it depends, was not reloaded`, { status: 409 });
      const options = { body, timeout: this.#timeout };
      results.set(one, await ask(one.socket, 'POST', of(one.app, verb), options).catch(unknownEnd));
    };
    for (const stage of stages) {
      const settled = await Promise.allSettled(stage.map(change));
      settled.forEach(({ status, reason }, at) => status === 'rejected' && failed.set(stage[at], reason));
    }
    // The first is the cause of the others.
    for (const reason of failed.values()) throw reason;
    return found.map((one) => ({ name: one.app, ...results.get(one) }));
  }

  async #change(target, verb, body) {
    return this.#each(await this.#wanted(target), verb, body);
  }
}

/** A deployment; undefined: it has ended. One that is about to end closes connections some time before its socket. */
async function deploymentAt(socket) {
  for (let looks = 1; ; looks += 1) {
    try {
      return { ...(await ask(socket, 'GET', '/v1/apps')), socket };
    } catch (error) {
      if (hasEnded(error)) return undefined;
      if (looks === LOOKS_MAX || !['ECONNRESET', 'EPIPE'].includes(error.code)) throw error;
    }
    await pause(LOOK_EVERY_MS);
  }
}

/** A master that is replaced closes the connections of the requests that it carries out. Its successor may carry them on. */
function unknownEnd(error) {
  if (error.code !== 'ECONNRESET') throw error;
  const message = `${error.message}; the request may have been carried out: apps() says how things are`;
  throw new ClusterdError(message, { code: error.code, cause: error });
}

/** Methods take a callback as PM2's do, as their last argument. */
function withCallback(plain) {
  return function calledBack(...args) {
    if (typeof args.at(-1) !== 'function') return plain.apply(this, args);
    const callback = args.pop();
    // What a callback throws is its caller's, not a rejection.
    const call = (...results) => process.nextTick(callback, ...results);
    plain.apply(this, args).then((result) => call(null, result), (error) => call(error));
    return undefined;
  };
}
const ASYNC = [
  'deployments', 'apps', 'list', 'describe', 'start', 'reload', 'restart', 'stop', 'delete', 'scale', 'sendSignal', 'reset',
  'trigger', 'flush', 'reloadLogs', 'env', 'releases', 'rollback',
];
for (const name of ASYNC) Clusterd.prototype[name] = withCallback(Clusterd.prototype[name]);

/** A client of a home: `{home}`, or $CLUSTERD_HOME, or ~/.clusterd. There is no daemon: it works before anything runs. */
const connect = withCallback(async (options) => new Clusterd(options));

module.exports = { Clusterd, ClusterdError, connect, binaryPath };
