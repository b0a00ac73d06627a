'use strict';
// What comes from several sources, as one async iterator.
const { setMaxListeners } = require('node:events');

/**
 * Items of several sources, in the order in which they come. Of each source one item waits at most: a source is asked for the next
 * one when its last one was taken. Unlike those of a generator, `return()` ends a `next()` that waits.
 */
class Stream {
  #begin;
  #signal;
  #whenOver;
  #state = 'new';
  #failure;
  /** Ends the sources. */
  #sources = new AbortController();
  #running = 0;
  #items = [];
  #takers = [];

  /**
   * `begin(add, signal)` is called by the first `next`, and adds sources, for as long as its promise is pending. `signal` ends the
   * iterator with its reason.
   */
  constructor(begin, { signal, whenOver = () => {} } = {}) {
    this.#begin = begin;
    this.#signal = signal;
    this.#whenOver = whenOver;
    // One for each source, however many deployments there are.
    setMaxListeners(0, this.#sources.signal);
  }

  next() {
    if (this.#state === 'new') this.#open();
    const item = this.#items.shift();
    if (item !== undefined) {
      item.taken();
      return Promise.resolve({ value: item.value, done: false });
    }
    if (this.#state !== 'over') return new Promise((resolve, reject) => this.#takers.push({ resolve, reject }));
    const failure = this.#failure;
    this.#failure = undefined;
    return failure === undefined ? Promise.resolve(OVER) : Promise.reject(failure.reason);
  }

  /** Ends it at once, and closes what it reads from. */
  return() {
    this.#discard();
    this.#finish();
    this.#failure = undefined;
    return Promise.resolve(OVER);
  }

  throw(error) {
    return this.return().then(() => Promise.reject(error));
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  #aborted = () => {
    this.#discard();
    this.#finish({ reason: this.#signal.reason });
  };

  #open() {
    this.#state = 'open';
    if (this.#signal?.aborted) return this.#aborted();
    this.#signal?.addEventListener('abort', this.#aborted, { once: true });
    return this.#run(() => this.#begin((source) => void this.#run(() => this.#pass(source)), this.#sources.signal));
  }

  /** The last that comes to its end ends the iterator; so does the first that fails. */
  async #run(work) {
    this.#running += 1;
    try {
      await work();
    } catch (reason) {
      this.#finish({ reason });
    }
    this.#running -= 1;
    if (this.#running === 0) this.#finish();
  }

  async #pass(source) {
    for await (const value of source) {
      if (this.#state === 'over') return;
      const taker = this.#takers.shift();
      if (taker !== undefined) taker.resolve({ value, done: false });
      else await new Promise((taken) => this.#items.push({ value, taken }));
    }
  }

  #discard() {
    for (const { taken } of this.#items.splice(0)) taken();
  }

  #finish(failure) {
    if (this.#state === 'over') return;
    this.#state = 'over';
    this.#signal?.removeEventListener('abort', this.#aborted);
    this.#sources.abort();
    const [first, ...others] = this.#takers.splice(0);
    if (failure !== undefined && first !== undefined) first.reject(failure.reason);
    else {
      first?.resolve(OVER);
      this.#failure = failure;
    }
    for (const { resolve } of others) resolve(OVER);
    this.#whenOver();
  }
}

const OVER = Object.freeze({ value: undefined, done: true });
if (Symbol.asyncDispose) {
  Stream.prototype[Symbol.asyncDispose] = async function dispose() {
    await this.return();
  };
}

module.exports = { Stream };
