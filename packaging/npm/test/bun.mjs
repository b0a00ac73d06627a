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
  assert.equal((await clusterd.reload('web'))[0].ok, true);
  assert.equal((await clusterd.apps())[0].generation, 2);
} finally {
  await clusterd.delete('all', { now: true });
}
console.log('bun: passed');
