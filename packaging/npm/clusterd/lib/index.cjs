'use strict';
// The JavaScript API of clusterd: a client of the control sockets of one home. Where PM2 has the same thing, its name is PM2's.
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { binaryPath, run } = require('./binary.cjs');
const { ClusterdError, ask, lines } = require('./http.cjs');
const { startArguments } = require('./options.cjs');

const of = (name, verb) => `/v1/apps/${encodeURIComponent(name)}${verb ? `/${verb}` : ''}`;

class Clusterd {
  constructor({ home } = {}) {
    this.home = path.resolve(home ?? process.env.CLUSTERD_HOME ?? path.join(os.homedir(), '.clusterd'));
    this.following = new Set();
  }

  /** The control sockets that are there; one may be of a deployment that was killed. */
  sockets() {
    const folder = path.join(this.home, 'run');
    try {
      return fs.readdirSync(folder).filter((name) => name.endsWith('.sock')).sort().map((name) => path.join(folder, name));
    } catch (error) {
      if (error.code === 'ENOENT') return [];
      throw error;
    }
  }

  /** Every deployment that runs. */
  async deployments() {
    const answers = this.sockets().map(async (socket) => {
      try {
        return { ...(await ask(socket, 'GET', '/v1/apps')), socket };
      } catch (error) {
        if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT') return undefined;
        throw error;
      }
    });
    return (await Promise.all(answers)).filter((deployment) => deployment !== undefined);
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
      const found = typeof what === 'number' || Object.keys(more).length === 0 ? await this.#find(what) : [];
      if (found.length > 0) return this.#each(found, 'start');
      if (typeof what === 'number') throw new ClusterdError(`there is no app with the id ${what}`);
    }
    const isFile = typeof what === 'string' && /\.(toml|json|ya?ml|config\.[cm]?js)$/.test(what);
    const typed = isFile ? ['start', what] : startArguments(typeof what === 'object' ? what : { script: what, ...more });
    if (isFile && Object.keys(more).length > 0) throw new TypeError('clusterd: a file takes no further options');
    const before = new Set((await this.list()).map((worker) => worker.pid));
    await this.#run(typed);
    return (await this.list()).filter((worker) => !before.has(worker.pid));
  }

  /** Replaces every worker, the new ones first; rejects where the new code does not get ready, and the old one stays. */
  reload(target) {
    return this.#change(target, 'reload');
  }

  /** Stops the workers, then starts them again. */
  restart(target) {
    return this.#change(target, 'restart');
  }

  /** Finishes open connections, then ends the workers. `now`: at once. */
  stop(target, { now = false } = {}) {
    return this.#change(target, 'stop', { now });
  }

  /** The same, and removes the app. */
  async delete(target, { now = false } = {}) {
    const words = ['delete', ...(now ? ['--now'] : []), target instanceof RegExp ? `/${target.source}/` : String(target)];
    return { ok: true, message: (await this.#run(words)).trim() };
  }

  /** The number of workers: 4, "+2", "-1", "max", "50%". */
  scale(target, workers) {
    return this.#change(target, 'scale', { workers: String(workers) });
  }

  /** Sends a signal to every worker. */
  sendSignal(signal, target) {
    return this.#change(target, 'signal', { signal });
  }

  /** Counts restarts from 0. */
  reset(target) {
    return this.#change(target, 'reset');
  }

  /** The environment of an app's workers. */
  async env(name) {
    const [{ socket, app }] = await this.#wanted(name);
    return (await ask(socket, 'GET', of(app, 'env'))).env;
  }

  /** Lines that workers print: the last ones, then with `follow` new ones. */
  async *logs({ app, lines: last = 15, follow = false, type, slot, signal } = {}) {
    const query = new URLSearchParams({ lines: String(last), follow: String(follow) });
    for (const name of app === undefined ? [] : [app].flat()) query.append('app', name);
    if (type !== undefined) query.set('type', type);
    if (slot !== undefined) query.set('slot', String(slot));
    const wanted = app === undefined ? this.sockets() : [...new Set((await this.#wanted([app].flat())).map((w) => w.socket))];
    yield* this.#merged(wanted.map((socket) => [socket, `/v1/logs?${query}`]), signal);
  }

  /** Ends what follows (`logs`, `events`). Nothing else is held open. */
  disconnect() {
    for (const controller of this.following) controller.abort();
    this.following.clear();
  }

  async *#merged(sources, signal) {
    const controller = new AbortController();
    const abort = () => controller.abort();
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted) abort();
    this.following.add(controller);
    const streams = sources.map(([socket, query]) => lines(socket, query, controller.signal));
    const next = (stream) => stream.next().then((step) => ({ stream, step }), (error) => ({ stream, error }));
    const waiting = new Map(streams.map((stream) => [stream, next(stream)]));
    try {
      while (waiting.size > 0) {
        const { stream, step, error } = await Promise.race(waiting.values());
        if (error && controller.signal.aborted) return;
        if (error) throw error;
        if (step.done) waiting.delete(stream);
        else {
          waiting.set(stream, next(stream));
          yield step.value;
        }
      }
    } finally {
      controller.abort();
      this.following.delete(controller);
      signal?.removeEventListener('abort', abort);
    }
  }

  #run([verb, ...rest]) {
    return run([verb, '--home', this.home, ...rest]);
  }

  /** Where the apps of a target are. */
  async #find(target) {
    const targets = [target].flat();
    const means = (app, wanted) => {
      if (wanted instanceof RegExp) return wanted.test(app.name);
      return wanted === 'all' || app.name === wanted || String(app.id) === String(wanted) || app.namespace === wanted;
    };
    const deployments = await this.deployments();
    return deployments.flatMap(({ socket, apps }) =>
      apps.filter((app) => targets.some((wanted) => means(app, wanted))).map((app) => ({ socket, app: app.name })),
    );
  }

  async #wanted(target) {
    const found = await this.#find(target);
    if (found.length > 0) return found;
    const names = (await this.apps()).map((app) => app.name).join(', ') || 'none';
    throw new ClusterdError(`there is no app "${target}"; there are: ${names}`, { status: 404 });
  }

  async #each(found, verb, body) {
    const done = found.map(({ socket, app }) => ask(socket, 'POST', of(app, verb), body));
    const results = await Promise.allSettled(done);
    const failed = results.find((result) => result.status === 'rejected');
    if (failed) throw failed.reason;
    return results.map((result, at) => ({ name: found[at].app, ...result.value }));
  }

  async #change(target, verb, body) {
    return this.#each(await this.#wanted(target), verb, body);
  }
}

/** Methods take a callback as PM2's do, as their last argument. */
function withCallbacks(type) {
  const names = ['deployments', 'apps', 'list', 'describe', 'start', 'reload', 'restart', 'stop', 'delete', 'scale'];
  for (const name of [...names, 'sendSignal', 'reset', 'env']) {
    const plain = type.prototype[name];
    type.prototype[name] = function withCallback(...args) {
      if (typeof args.at(-1) !== 'function') return plain.apply(this, args);
      const callback = args.pop();
      plain.apply(this, args).then((result) => callback(null, result), (error) => callback(error));
      return undefined;
    };
  }
}
withCallbacks(Clusterd);

/** A client of a home: `{home}`, or $CLUSTERD_HOME, or ~/.clusterd. There is no daemon: it works before anything runs. */
async function connect(options = {}) {
  return new Clusterd(options);
}

module.exports = { Clusterd, ClusterdError, connect, binaryPath };
