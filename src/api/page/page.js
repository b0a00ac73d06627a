// The page of the control API: shows what GET /v1/apps has, again whenever something happens, and sends commands. Text
// that came from apps is only ever set as text.
'use strict';

const LOOK_EVERY_MS = 2000;
const EVENTS_SHOWN_MAX = 200;
const LINES_SHOWN_MAX = 500;
const AGAIN_AFTER_MS = 2000;
const TONES = {
  running: 'good', ready: 'good', spare: 'good',
  errored: 'bad', stopped: 'bad', waiting: 'bad', gone: 'bad', worker_died: 'bad', reload_failed: 'bad', app_errored: 'bad',
  warning: 'busy', lost: 'busy', reload_started: 'busy', reload_done: 'good', worker_ready: 'good', app_ready: 'good',
};

const at = (id) => document.getElementById(id);
let token = sessionStorage.getItem('token') || '';
let before = null;
let lastEvent = null;
let following = null;

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function trouble(text) {
  at('trouble').hidden = !text;
  at('trouble').textContent = text || '';
}

function ask(path, options = {}) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  return fetch(path, { ...options, headers, cache: 'no-store' });
}

async function command(path, body) {
  const answer = await ask(path, { method: 'POST', body: body && JSON.stringify(body) });
  const said = await answer.json().catch(() => ({}));
  trouble(answer.ok ? '' : said.error || `it answered ${answer.status}`);
  look();
}

function use(text) {
  token = text;
  sessionStorage.setItem('token', token);
}

const bytes = (count) => (count == null ? '' : `${(count / 1048576).toFixed(1)} MB`);
const rate = (now, then, seconds) => (then === undefined || now < then ? '' : ((now - then) / seconds).toFixed(1));

function time(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} m`;
  return s < 86400 ? `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} m` : `${Math.floor(s / 86400)} d`;
}

// The figures that rates are computed from.
function figures(deployment) {
  const found = { at: performance.now(), apps: {}, workers: {} };
  for (const app of deployment.apps) {
    found.apps[app.name] = app.handoffs;
    for (const worker of app.workers) found.workers[worker.id] = { cpu: worker.cpu_ms, handoffs: worker.handoffs };
  }
  return found;
}

function workerRow(worker, seconds) {
  const then = before && worker.id != null && before.workers[worker.id];
  const cpu = then && worker.cpu_ms != null && then.cpu != null
    ? `${Math.max(0, (worker.cpu_ms - then.cpu) / (10 * seconds)).toFixed(0)} %` : '';
  const row = element('tr');
  const cells = [
    [worker.slot], [worker.state, `word ${TONES[worker.state] || 'busy'}`], [worker.pid ?? ''],
    [worker.uptime_ms == null ? '' : time(worker.uptime_ms)], [worker.restarts], [cpu], [bytes(worker.memory_bytes)],
    [worker.loop_delay_ms == null ? '' : `${worker.loop_delay_ms.toFixed(1)} ms`],
    [then ? rate(worker.handoffs, then.handoffs, seconds) : ''], [worker.open_handoffs], [worker.note || worker.not_yet || '', 'note'],
  ];
  for (const [text, kind] of cells) row.append(element('td', String(text), kind));
  return row;
}

function button(text, act) {
  const made = element('button', text);
  made.type = 'button';
  made.disabled = !token;
  made.title = token ? '' : 'needs the token';
  made.addEventListener('click', act);
  return made;
}

function appCard(app, seconds) {
  const card = element('article');
  const path = `/v1/apps/${encodeURIComponent(app.name)}`;
  card.dataset.app = app.name;
  const head = element('div');
  head.append(element('h2', app.name), element('span', app.status, TONES[app.status] || 'busy'));
  const per = before ? rate(app.handoffs, before.apps[app.name], seconds) : '';
  const bounds = app.scale ? ` (${app.scale.min} to ${app.scale.max})` : '';
  const said = [`${app.workers_ready} of ${app.workers_wanted} workers${bounds}`, `generation ${app.generation}`,
    `${app.restarts} restarts`, per && `${per} connections/s`, app.listen.join(', ')];
  head.append(element('span', said.filter(Boolean).join(' · ')));
  const acts = element('nav');
  const stopped = app.status === 'stopped' || app.status === 'errored';
  acts.append(
    button('Reload', () => command(`${path}/reload`)),
    button('+1', () => command(`${path}/scale`, { workers: '+1' })),
    button('−1', () => command(`${path}/scale`, { workers: '-1' })),
    ...app.scale?.by_hand ? [button('Auto', () => command(`${path}/scale`, { workers: 'auto' }))] : [],
    button('Restart', () => confirm(`Restart ${app.name}?`) && command(`${path}/restart`)),
    stopped ? button('Start', () => command(`${path}/start`))
      : button('Stop', () => confirm(`Stop ${app.name}?`) && command(`${path}/stop`)),
    button('Output', () => output(app.name)),
  );
  head.append(acts);
  const table = element('table');
  const titles = element('tr');
  for (const title of ['slot', 'state', 'pid', 'up', 'restarts', 'CPU', 'memory', 'loop', 'conn/s', 'open', 'note']) {
    titles.append(element('th', title, title === 'state' || title === 'note' ? 'word' : ''));
  }
  table.append(titles, ...app.workers.map((worker) => workerRow(worker, seconds)));
  card.append(head, table);
  return card;
}

// A click begins and ends on the same button, and the keyboard stays where it is.
let pressed = false;
function show(cards) {
  if (pressed) return;
  const focused = document.activeElement?.closest('article')?.dataset.app;
  const label = focused === undefined ? null : document.activeElement.textContent;
  at('apps').replaceChildren(...cards);
  const card = cards.find((card) => card.dataset.app === focused);
  if (card) [...card.querySelectorAll('button')].find((button) => button.textContent === label)?.focus();
}

let looking = false;
async function look() {
  if (looking) return;
  looking = true;
  try {
    const used = token;
    const answer = await ask('/v1/apps');
    const deployment = await answer.json();
    if (!answer.ok) {
      // Reading on without it may be allowed.
      if (used && used === token && (answer.status === 401 || answer.status === 403)) use('');
      throw new Error(deployment.error);
    }
    const now = figures(deployment);
    const seconds = before ? Math.max(0.05, (now.at - before.at) / 1000) : 1;
    document.title = `${deployment.name} - clusterd`;
    at('name').textContent = deployment.name;
    at('about').textContent = `clusterd ${deployment.version}, up ${time(deployment.uptime_ms)}`;
    show(deployment.apps.map((app) => appCard(app, seconds)));
    if (!before || now.at - before.at > 500) before = now;
    if (at('trouble').dataset.look) { delete at('trouble').dataset.look; trouble(''); }
  } catch (error) {
    at('trouble').dataset.look = '1';
    trouble(`Cannot read the state: ${error.message}`);
  }
  looking = false;
}

// Reads lines of JSON as long as they come.
async function lines(path, options, each) {
  const answer = await ask(path, options);
  if (!answer.ok) throw new Error((await answer.json()).error);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const whole = (rest + value).split('\n');
    rest = whole.pop();
    for (const line of whole) if (line) each(JSON.parse(line));
  }
}

function showEvent(event) {
  lastEvent = event.id;
  const line = element('li');
  const about = [event.app, event.slot].filter((part) => part != null).join('/');
  line.append(element('time', new Date(event.at_ms).toLocaleTimeString()), element('span', event.type, TONES[event.type] || ''),
    ` ${about ? `${about}: ` : ''}${event.message}`);
  at('events').prepend(line);
  while (at('events').children.length > EVENTS_SHOWN_MAX) at('events').lastChild.remove();
}

async function follow() {
  for (;;) {
    try {
      const after = lastEvent == null ? '' : `&after=${lastEvent}`;
      await lines(`/v1/events?follow=true${after}`, {}, (event) => { showEvent(event); look(); });
    } catch { /* The look says what is wrong. */ }
    await new Promise((wake) => setTimeout(wake, AGAIN_AFTER_MS));
  }
}

async function output(app) {
  following?.abort();
  const stop = following = new AbortController();
  at('output').hidden = false;
  at('logged').textContent = app;
  at('lines').textContent = '';
  try {
    await lines(`/v1/logs?follow=true&lines=100&app=${encodeURIComponent(app)}`, { signal: stop.signal }, (line) => {
      at('lines').append(`${line.message}\n`);
      while (at('lines').childNodes.length > LINES_SHOWN_MAX) at('lines').firstChild.remove();
      at('lines').scrollTop = at('lines').scrollHeight;
    });
  } catch (error) {
    if (!stop.signal.aborted) at('lines').append(error.message);
  }
}

addEventListener('pointerdown', () => { pressed = true; });
for (const end of ['pointerup', 'pointercancel', 'blur']) addEventListener(end, () => { pressed = false; });
at('close').addEventListener('click', () => { following?.abort(); at('output').hidden = true; });
at('login').addEventListener('submit', (event) => {
  event.preventDefault();
  use(at('token').value.trim());
  at('token').value = '';
  trouble('');
  look();
});
setInterval(() => { if (!document.hidden) look(); }, LOOK_EVERY_MS);
look();
follow();
