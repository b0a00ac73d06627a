// The API on Bun: one pass through it.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { connect } from 'clusterd';

const clusterd = await connect({ home: fs.mkdtempSync(path.join(process.cwd(), 'home-bun-')) });
try {
  await clusterd.start({ script: 'app.cjs', name: 'web', workers: 1, port: 0 });
  const [app] = await clusterd.apps();
  const answer = await (await fetch(`http://127.0.0.1:${app.listen[0].split(':').at(-1)}/`)).json();
  assert.deepEqual([answer.app, answer.slot], ['web', 0]);
  const events = clusterd.events({ app: 'web' });
  assert.equal((await clusterd.reload('web'))[0].ok, true);
  let event = await events.next();
  assert.equal(event.value.type, 'reload_started');
  while (event.value.type !== 'reload_done') event = await events.next();
  const waits = Promise.race([events.next(), events.next()]);
  await events.return();
  await waits;
  const aborted = clusterd.events({ app: 'web', signal: AbortSignal.timeout(100) });
  await assert.rejects(aborted.next().then(() => aborted.next()), { name: 'TimeoutError' });
  await assert.rejects(clusterd.reload('wbe'), { status: 404 });
  assert.equal((await clusterd.apps())[0].generation, 2);
  const until = clusterd.events({ kept: true });
  assert.equal((await until.next()).done, false);
  await clusterd.delete('web', { now: true });
  for (event = await until.next(); !event.done; event = await until.next());
  await assert.rejects(clusterd.events().next(), { code: 'ENOENT' });
} finally {
  if ((await clusterd.apps()).length > 0) await clusterd.delete('all', { now: true });
}
console.log('bun: passed');
