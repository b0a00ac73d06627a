// Runs in a fresh folder that has the packages from their tarballs, with `home` and `app.cjs` beside it.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { after, test } from 'node:test';
import { Clusterd, ClusterdError, binaryPath, connect } from 'clusterd';
import * as worker from 'clusterd/worker';

const require = createRequire(import.meta.url);

const home = fs.mkdtempSync(path.join(process.cwd(), 'home-'));
const clusterd = await connect({ home });
after(async () => {
  clusterd.disconnect();
  for (const name of new Set((await clusterd.apps()).map((app) => app.name))) await clusterd.delete(name, { now: true });
});

async function answer(app) {
  const port = app.listen[0].split(':').at(-1);
  const response = await fetch(`http://127.0.0.1:${port}/`);
  return response.json();
}

test('both kinds of modules are the same API', () => {
  const required = require('clusterd');
  assert.equal(required.Clusterd, Clusterd);
  assert.equal(required.connect, connect);
  assert.deepEqual(Object.keys(required).sort(), ['Clusterd', 'ClusterdError', 'binaryPath', 'connect']);
  const requiredWorker = require('clusterd/worker');
  assert.deepEqual(Object.keys(requiredWorker), Object.keys(worker.default));
  for (const [name, value] of Object.entries(requiredWorker)) assert.equal(worker[name], value, name);
});

test('the launcher becomes the binary', () => {
  const launcher = path.join('node_modules', '.bin', 'clusterd');
  const { version } = JSON.parse(fs.readFileSync('node_modules/clusterd/package.json', 'utf8'));
  assert.equal(execFileSync(launcher, ['--version'], { encoding: 'utf8' }), `clusterd ${version}\n`);
  const failed = spawnSync(launcher, ['reload', 'nothing', '--home', home], { encoding: 'utf8' });
  assert.equal(failed.status, 1);
  assert.match(fs.realpathSync(binaryPath()), /@clusterd/);
});

test('an empty home has nothing', async () => {
  assert.deepEqual(await clusterd.apps(), []);
  assert.deepEqual(await clusterd.list(), []);
  await assert.rejects(clusterd.reload('web'), (error) => error instanceof ClusterdError && error.status === 404);
});

test('start, list, reload, scale, stop, start, delete', async () => {
  const started = await clusterd.start({
    script: 'app.cjs', name: 'web', instances: 2, port: 0, env: { GREETING: 'hello there' }, args: ['--one', 'two words'],
  });
  assert.equal(started.length, 2);
  assert.deepEqual(started.map((each) => each.name), ['web', 'web']);
  assert.equal(started[0].pm2_env.status, 'online');

  let [app] = await clusterd.apps();
  assert.deepEqual([app.name, app.status, app.workers_ready, app.generation], ['web', 'running', 2, 1]);
  const seen = await answer(app);
  assert.deepEqual([seen.greeting, seen.args, seen.isClusterd, seen.app], ['hello there', ['--one', 'two words'], true, 'web']);
  assert.equal((await clusterd.env('web')).GREETING, 'hello there');

  const [reloaded] = await clusterd.reload('web');
  assert.equal(reloaded.ok, true);
  [app] = await clusterd.apps();
  assert.equal(app.generation, 2);
  assert.equal((await answer(app)).generation, 2);
  // The same folder with the same configuration is one release.
  const releases = await clusterd.releases('web');
  assert.deepEqual(releases.map(({ generation, state, reason }) => [generation, state, reason]), [[2, 'serving', null]]);
  await assert.rejects(clusterd.rollback('web'), (error) => error.status === 409 && /no generation served before/.test(error.message));

  await clusterd.scale('web', '+1');
  [app] = await clusterd.apps();
  assert.equal(app.workers_wanted, 3);

  await clusterd.stop(/^we/);
  assert.equal((await clusterd.apps())[0].status, 'stopped');
  await clusterd.start('web');
  assert.equal((await clusterd.apps())[0].status, 'running');
  assert.equal((await clusterd.describe('web')).length, 3);

  const inTheOtherForm = await new Promise((resolve, reject) => {
    clusterd.list((error, list) => (error ? reject(error) : resolve(list)));
  });
  assert.equal(inTheOtherForm.length, 3);
  const other = await new Promise((resolve, reject) => {
    connect({ home }, (error, connected) => (error ? reject(error) : resolve(connected)));
  });
  assert.equal(other.home, home);

  const { pm_id: id, monit, pm2_env: fields } = inTheOtherForm[0];
  assert.ok(monit.memory > 1 << 20 && monit.cpu >= 0 && fields.pm_uptime <= Date.now(), monit);
  assert.deepEqual([id, fields.status, fields.exec_mode, fields.instances], [app.id, 'online', 'cluster_mode', 3]);
  assert.deepEqual([fields.args, path.basename(fields.pm_exec_path)], [['--one', 'two words'], 'app.cjs']);
  assert.deepEqual(new Set(inTheOtherForm.map((each) => each.pm2_env.NODE_APP_INSTANCE)), new Set([0, 1, 2]));

  assert.deepEqual(await clusterd.delete('web'), [{ name: 'web', ok: true, message: 'web is deleted' }]);
  assert.deepEqual(await clusterd.apps(), []);
});

test('a reload to code that fails rejects with what the worker said', async () => {
  fs.writeFileSync('breaks.cjs', fs.readFileSync('app.cjs'));
  await clusterd.start({ script: 'breaks.cjs', name: 'breaks', workers: 1, port: 0 });
  fs.writeFileSync('breaks.cjs', 'throw new Error("the new code is broken");');
  await assert.rejects(clusterd.reload('breaks'), (error) => {
    assert.equal(error.status, 409);
    assert.match(JSON.stringify(error.output), /the new code is broken/);
    return true;
  });
  const [app] = await clusterd.apps();
  assert.deepEqual([app.workers_ready, (await answer(app)).app], [1, 'breaks']);
  await clusterd.delete('breaks', { now: true });
});

test('apps that depend on each other are reloaded and stopped in order', async () => {
  const script = (name) => `trap 'echo ${name} ends >> order; exit' TERM; echo ${name} $CLUSTERD_GENERATION >> order; while :; do sleep 0.01; done`;
  const app = (name, more) => `[[app]]\nname = "${name}"\ncommand = ["sh", "-c", ${JSON.stringify(script(name))}]\nworkers = 1\nready = "1ms"\n${more}\n`;
  const before = 'before = ["sh", "-c", "test ! -e broken"]';
  fs.writeFileSync('chain.toml', app('front', 'depends_on = ["back"]') + app('back', `depends_on = ["store"]\n${before}`) + app('store', ''));
  await clusterd.start('chain.toml');
  fs.writeFileSync('broken', '');
  await assert.rejects(clusterd.reload(['front', 'back', 'store']), (error) => error instanceof ClusterdError && error.message.includes('before'));
  const generations = async () => (await clusterd.apps()).map(({ name, generation }) => `${name} ${generation}`).sort();
  assert.deepEqual(await generations(), ['back 1', 'front 1', 'store 2']);
  fs.rmSync('broken');
  const names = ['back', 'front', 'store'];
  assert.deepEqual((await clusterd.reload('all')).map(({ name }) => name).sort(), names);
  // One that fails has a number too.
  assert.deepEqual(await generations(), ['back 3', 'front 2', 'store 3']);
  fs.writeFileSync('order', '');
  assert.deepEqual((await clusterd.stop('all')).map(({ name }) => name).sort(), names);
  assert.equal(fs.readFileSync('order', 'utf8'), 'front ends\nback ends\nstore ends\n');
  await clusterd.delete(['front', 'back', 'store'], { now: true });
});

test('lines of logs come as they are printed', async () => {
  await clusterd.start({ script: 'app.cjs', name: 'talks', workers: 1, port: 0 });
  const [app] = await clusterd.apps();
  const lines = clusterd.logs({ app: 'talks', follow: true });
  let line = await lines.next();
  while (!line.value.message.includes('listens')) line = await lines.next();
  await answer(app);
  while (!line.value.message.includes('answered')) line = await lines.next();
  assert.equal(line.value.app_name, 'talks');
  await lines.return();
  const printed = async () => {
    const all = [];
    for await (const { message } of clusterd.logs({ app: 'talks' })) all.push(message);
    return all;
  };
  assert.deepEqual(await printed(), ['listens', 'answered']);
  const { log } = app;
  fs.renameSync(log.out, `${log.out}.moved`);
  assert.deepEqual((await clusterd.reloadLogs()).map(({ name, ok }) => [name, ok]), [['talks', true]]);
  await answer(app);
  // Until it is written.
  while ((await printed()).length === 0);
  assert.equal((await clusterd.flush('talks'))[0].ok, true);
  assert.deepEqual([await printed(), fs.readFileSync(`${log.out}.moved`, 'utf8')], [[], 'listens\nanswered\n']);
  await assert.rejects(clusterd.trigger('talks', 'nothing'), (error) => error instanceof ClusterdError && error.status >= 400);
  await clusterd.delete('talks', { now: true });
});

test('options that mean nothing are refused', async () => {
  await assert.rejects(clusterd.start({ script: 'app.cjs', instancess: 2 }), /no option "instancess"/);
  await assert.rejects(clusterd.start({ name: 'x' }), /script or command/);
  await assert.rejects(clusterd.start('no-such-file.js'), /no-such-file/);
});

test('without clusterd a worker knows that', async () => {
  assert.equal(worker.isClusterd, false);
  await assert.rejects(worker.send('all', 1), /no channel/);
  assert.equal(worker.ready(), false);
  assert.equal(worker.moveWebSockets({ options: {} }, {}), false);
});

test('messages go to the agent and back', async () => {
  fs.writeFileSync('agent.toml', `
    [[app]]
    name = "talkers"
    command = ["node", "talker.cjs"]
    workers = 2
    listen = ["127.0.0.1:0"]
    [app.agent]
    command = ["node", "agent.cjs"]
  `);
  await clusterd.start('agent.toml');
  const [app] = await clusterd.apps();
  const { answer: text, failed } = await answer(app);
  assert.equal(text.text, 'the agent got: question');
  assert.ok(text.events.includes('state') && text.events.includes('worker_ready'), text.events);
  assert.match(failed, /clusterd: /);
  await clusterd.delete('talkers', { now: true });
});

const noWs = fs.existsSync('node_modules/ws') ? false : 'the package ws is missing';
test('a WebSocket moves to another worker with its state', { skip: noWs }, async () => {
  const { WebSocket } = require('ws');
  await clusterd.start({ script: 'sockets.cjs', name: 'sockets', workers: 1, port: 0 });
  const [app] = await clusterd.apps();
  const socket = new WebSocket(`ws://127.0.0.1:${app.listen[0].split(':').at(-1)}/`);
  await once(socket, 'open');
  const answer = async (text) => {
    socket.send(text);
    const [data] = await once(socket, 'message');
    return JSON.parse(data);
  };
  const before = await answer('one');
  await clusterd.reload('sockets');
  const after = await answer('two');
  assert.deepEqual([before.count, after.count, after.text], [1, 2, 'two']);
  assert.notEqual(before.pid, after.pid);
  socket.terminate();
  await clusterd.delete('sockets', { now: true });
});
