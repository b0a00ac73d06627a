// Events, their ends and their bounds. Runs as api.test.mjs does.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { ClusterdError, connect } from 'clusterd';

/** A short folder: the path of a unix socket has 107 bytes at most. */
const fresh = () => fs.mkdtempSync('/tmp/clusterd-npm-');
const homes = [];
async function client(options = {}) {
  const home = fresh();
  homes.push(home);
  fs.mkdirSync(path.join(home, 'run'), { mode: 0o700 });
  return connect({ home, ...options });
}
const starts = (clusterd, name) => clusterd.start({ script: 'app.cjs', name, workers: 1, port: 0 });

after(async () => {
  for (const home of homes) {
    const clusterd = await connect({ home });
    if ((await clusterd.apps()).length > 0) await clusterd.delete('all', { now: true });
    fs.rmSync(home, { recursive: true, force: true });
  }
});

/** Takes events up to one of this type. */
async function upTo(type, events) {
  const seen = [];
  for (;;) {
    const { value, done } = await events.next();
    assert.equal(done, false, `it ended after ${JSON.stringify(seen)}`);
    seen.push(value);
    if (value.type === type) return seen;
  }
}

/** A control socket that is answered by `answer(request, response)`, but for /v1/apps. */
async function pretended(clusterd, answer, name = 'pretended') {
  const server = http.createServer((request, response) => {
    if (request.url !== '/v1/apps') return answer(request, response);
    return response.end(JSON.stringify({ name, apps: [{ name: 'web', id: 0, namespace: 'default' }] }));
  });
  server.listen(path.join(clusterd.home, 'run', `${name}.sock`));
  await once(server, 'listening');
  return server;
}
const line = (id) => `${JSON.stringify({ id, at_ms: 0, type: 'warning', message: 'x'.repeat(200) })}\n`;

test('where nothing runs, that is said', async () => {
  const clusterd = await client();
  const nothing = (error) => error instanceof ClusterdError && error.code === 'ENOENT' && error.message.includes(clusterd.home);
  await assert.rejects(clusterd.events().next(), nothing);
  await assert.rejects(clusterd.logs().next(), nothing);
  await assert.rejects(clusterd.scale('web', 2), nothing);
  // A deployment that was killed leaves its socket.
  const left = path.join(clusterd.home, 'run', 'left.sock');
  spawnSync(process.execPath, ['-e', 'require("net").createServer().listen(process.argv[1], () => process.exit())', left]);
  assert.ok(fs.existsSync(left));
  await assert.rejects(clusterd.events().next(), nothing);
});

test('events are those after the call, go on over the death of a master, and end with the deployment', async () => {
  const clusterd = await client();
  await starts(clusterd, 'web');
  const events = clusterd.events({ app: 'web' });
  await clusterd.reload('web');
  const reload = await upTo('reload_done', events);
  assert.equal(reload[0].type, 'reload_started');
  assert.ok(reload.every((event) => event.deployment === 'web' && event.app === 'web' && event.message !== ''), reload);
  assert.ok(reload.every((event, at) => at === 0 || event.id > reload[at - 1].id));

  const [{ id }] = reload;
  const again = [];
  for await (const event of clusterd.events({ app: 'web', after: id, follow: false })) again.push(event.id);
  assert.deepEqual(again.slice(0, reload.length - 1), reload.slice(1).map((event) => event.id));
  const kept = [];
  for await (const event of clusterd.events({ follow: false })) kept.push(event.type);
  assert.ok(kept.includes('app_ready'), kept);

  const before = (await clusterd.deployments())[0].master_pid;
  process.kill(before, 'SIGKILL');
  while ((await clusterd.deployments())[0].master_pid === before) await pause(20);
  await clusterd.reload('web');
  await upTo('reload_done', events);
  await clusterd.delete('web', { now: true });
  for (let step = await events.next(); !step.done; step = await events.next());
  assert.deepEqual(await events.next(), { value: undefined, done: true });
});

test('with stay, events of what starts later come too', async () => {
  const clusterd = await client();
  const events = clusterd.events({ stay: true });
  const first = events.next();
  await starts(clusterd, 'later');
  assert.equal((await first).value.deployment, 'later');
  await upTo('app_ready', events);
  await clusterd.delete('later', { now: true });
  await starts(clusterd, 'later');
  await upTo('app_ready', events);
  await events.return();
});

test('return, a signal and disconnect end an iterator that waits', async () => {
  const clusterd = await client();
  await starts(clusterd, 'web');
  const begun = async (options) => {
    const events = clusterd.events({ kept: true, ...options });
    await upTo('app_ready', events);
    return events;
  };
  for (const finish of [(events) => events.return(), () => clusterd.disconnect()]) {
    const events = await begun();
    let waits = events.next();
    while (await Promise.race([waits.then(() => true), pause(50, false)])) waits = events.next();
    finish(events);
    await waits;
    assert.equal((await events.next()).done, true);
  }
  const controller = new AbortController();
  const events = await begun({ signal: controller.signal });
  const waits = (async () => {
    for (;;) await events.next();
  })();
  controller.abort();
  await assert.rejects(waits, { name: 'AbortError' });
  assert.equal((await events.next()).done, true);
  await assert.rejects(clusterd.events({ signal: AbortSignal.abort() }).next(), { name: 'AbortError' });

  // Nothing is left that would keep a process alive.
  const program = `
    import { connect } from 'clusterd';
    const clusterd = await connect({ home: ${JSON.stringify(clusterd.home)} });
    for await (const event of clusterd.events({ kept: true })) if (event.type === 'app_ready') break;
    clusterd.events({ kept: true });
    const logs = clusterd.logs({ follow: true });
    const waits = logs.next().then(() => logs.next());
    await logs.return();
    await waits;
    console.log('over');
  `;
  fs.writeFileSync('ends.mjs', program);
  const ended = spawnSync(process.execPath, ['ends.mjs'], { encoding: 'utf8', timeout: 30_000 });
  assert.deepEqual([ended.status, ended.stdout], [0, 'over\n'], ended.stderr);
});

test('who does not read is not read for', async () => {
  const clusterd = await client();
  // Far more than the buffers of a connection hold.
  const muchBytes = 32 << 20;
  let [sent, id, drains] = [0, 0, 0];
  const server = await pretended(clusterd, (request, response) => {
    const write = () => {
      let more = true;
      while (more && sent < muchBytes) {
        id += 1;
        sent += line(id).length;
        more = response.write(line(id));
      }
    };
    response.on('drain', () => {
      drains += 1;
      write();
    });
    write();
  });
  const events = clusterd.events({ kept: true });
  assert.equal((await events.next()).value.id, 1);
  // Until nothing was taken from the server for a while.
  for (let before = -1; before !== drains; await pause(200)) before = drains;
  assert.ok(sent < muchBytes / 8, `${sent} bytes were read for one event`);
  for (let next = 2; next < 20_000; next += 1) assert.equal((await events.next()).value.id, next);
  await events.return();
  server.closeAllConnections?.();
  server.close();
});

test('after a break events go on after the last one', async () => {
  const clusterd = await client();
  const asked = [];
  const server = await pretended(clusterd, (request, response) => {
    asked.push(new URL(request.url, 'http://localhost').searchParams.get('after'));
    // The head of the answer and half a line; half a line; a whole one, and the end.
    if (asked.length === 1) response.write(line(1) + line(2) + line(3).slice(0, 20), () => response.destroy());
    else if (asked.length === 2) response.end(line(3));
    else {
      response.end(line(4));
      server.close();
    }
  });
  const ids = [];
  for await (const event of clusterd.events({ kept: true })) ids.push(event.id);
  assert.deepEqual([ids, asked], [[1, 2, 3, 4], [null, '2', '3']]);
});

test('events of many deployments come together, without a warning of Node', async () => {
  const clusterd = await client();
  const warnings = [];
  process.on('warning', (warning) => warnings.push(warning.message));
  const names = Array.from({ length: 20 }, (_, number) => `many-${number}`);
  const servers = await Promise.all(names.map((name) => pretended(clusterd, (request, response) => response.write(line(1)), name)));
  const events = clusterd.events({ kept: true });
  const seen = new Set();
  while (seen.size < names.length) seen.add((await events.next()).value.deployment);
  assert.deepEqual([...seen].sort(), names.sort());
  await assert.rejects(clusterd.events({ after: 1 }).next(), /ids count for one deployment/);
  await events.return();
  for (const server of servers) {
    server.closeAllConnections?.();
    server.close();
  }
  await pause(0);
  assert.deepEqual(warnings, []);
});

test('a request that is not answered fails in time, and says which', async () => {
  const clusterd = await client({ timeout: 300 });
  const server = await pretended(clusterd, () => {});
  await assert.rejects(clusterd.reload('web'), (error) => {
    assert.equal(error.code, 'ETIMEDOUT');
    assert.match(error.message, /did not answer POST \/v1\/apps\/web\/reload within 0.3 s/);
    return true;
  });
  server.closeAllConnections?.();
  server.close();
  await assert.rejects(connect({ timeout: 0 }), TypeError);
});

test('refusals are said as clusterd says them', async () => {
  const clusterd = await client();
  await starts(clusterd, 'web');
  await assert.rejects(clusterd.reload('wbe'), (error) => error.status === 404 && /there is no app wbe; there are: web/.test(error.message));
  await assert.rejects(clusterd.scale('web', 'many'), (error) => error instanceof ClusterdError && error.status === 409);
  await assert.rejects(clusterd.events({ app: 'wbe' }).next(), { status: 404 });
  await assert.rejects(clusterd.logs({ app: 'web', type: 'neither' }).next(), { status: 400 });
  await clusterd.delete(/^web$/g, { now: true });
});
