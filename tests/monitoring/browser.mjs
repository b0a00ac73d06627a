// A headless Chromium, driven by the DevTools protocol over a pipe: what a test of a page needs of it, and no more.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const PATIENCE_MS = 30_000;
const LOOK_EVERY_MS = 50;

export class Browser {
  #next = 1;
  #open = new Map();
  #rest = '';
  #session;
  // What the page asked for, and what it complained of.
  requests = [];
  complaints = [];

  static async start(program) {
    const browser = new Browser();
    browser.profile = mkdtempSync(join(tmpdir(), 'clusterd-browser-'));
    // As root, and in containers, Chromium has no sandbox; what it opens here is our own page.
    const options = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--remote-debugging-pipe',
      '--no-first-run', '--disable-background-networking', '--disable-component-update', '--window-size=1100,900',
      `--user-data-dir=${browser.profile}`, 'about:blank'];
    browser.process = spawn(program, options, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    browser.process.stdio[3].on('error', () => {});
    browser.process.stdio[4].setEncoding('utf8').on('data', (text) => browser.#read(text));
    browser.process.on('exit', (code, signal) => {
      for (const { reject } of browser.#open.values()) reject(new Error(`the browser ended: ${code ?? signal}`));
    });
    const { targetInfos } = await browser.#ask('Target.getTargets');
    const { targetId } = targetInfos.find((target) => target.type === 'page');
    const { sessionId } = await browser.#ask('Target.attachToTarget', { targetId, flatten: true });
    browser.#session = sessionId;
    for (const domain of ['Page', 'Runtime', 'Network', 'Log']) await browser.ask(`${domain}.enable`);
    return browser;
  }

  #read(text) {
    const parts = (this.#rest + text).split('\0');
    this.#rest = parts.pop();
    for (const part of parts) {
      const message = JSON.parse(part);
      if (message.id) {
        const { resolve, reject } = this.#open.get(message.id);
        this.#open.delete(message.id);
        if (message.error) reject(new Error(message.error.message)); else resolve(message.result);
      } else this.#heard(message.method, message.params);
    }
  }

  #heard(method, params) {
    if (method === 'Network.requestWillBeSent') this.requests.push(params.request.url);
    if (method === 'Runtime.exceptionThrown') this.complaints.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    // Answers such as 401 are logged too: those are the page's to show.
    if (method === 'Log.entryAdded' && params.entry.source !== 'network') this.complaints.push(params.entry.text);
    if (method === 'Page.javascriptDialogOpening') this.ask('Page.handleJavaScriptDialog', { accept: true }).catch(() => {});
  }

  #ask(method, params = {}, sessionId = undefined) {
    const id = this.#next++;
    this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.#open.set(id, { resolve, reject }));
  }

  // Asks the page's own session.
  ask(method, params) {
    return this.#ask(method, params, this.#session);
  }

  // The value of an expression in the page.
  async value(expression) {
    const { result, exceptionDetails } = await this.ask('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true });
    if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description}`);
    return result.value;
  }

  // Waits until an expression in the page is true.
  async until(what, expression) {
    const deadline = Date.now() + PATIENCE_MS;
    while (!(await this.value(expression))) {
      if (Date.now() > deadline) throw new Error(`${what} did not come true; the page says:\n${await this.value('document.body.innerText')}`);
      await new Promise((wake) => setTimeout(wake, LOOK_EVERY_MS));
    }
  }

  async picture() {
    return Buffer.from((await this.ask('Page.captureScreenshot', { format: 'png' })).data, 'base64');
  }

  async end() {
    const ended = new Promise((resolve) => this.process.once('exit', resolve));
    this.process.kill('SIGKILL');
    await ended;
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }
}
