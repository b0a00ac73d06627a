// Sockets in the file system: shared by the workers, with a full and a relative path, and with rights for every user.
'use strict';
const path = require('node:path');
const { ask, close, done, fs, listen, meet, net, say, slot } = require('../play.js');
const serve = () => net.createServer((socket) => socket.end(`from ${slot}`));
(async () => {
  const full = serve();
  say(await listen(full, path.resolve('full.sock')), full.address() === path.resolve('full.sock'));
  const relative = serve();
  say(await listen(relative, 'relative.sock'), relative.address());
  for (const [name, all] of [['r', { readableAll: true }], ['w', { writableAll: true }], ['rw', { readableAll: true, writableAll: true }]]) {
    const open = serve();
    say(name, await listen(open, { path: path.resolve(`${name}.sock`), ...all }));
  }
  await meet('listening');
  // Versions differ in the bits that nobody asked for.
  const has = (name, bits) => (fs.statSync(`${name}.sock`).mode & bits) === bits;
  if (slot === 0) say(has('r', 0o444), has('w', 0o222), has('rw', 0o666), has('full', 0o022));
  if (slot === 0) {
    for (const where of ['full.sock', path.resolve('relative.sock')]) {
      const seen = new Set();
      for (let n = 0; n < 4; n++) seen.add(await ask({ path: where }));
      say(path.basename(where), seen.size);
    }
  }
  await meet('asked');
  await close(full);
  await meet('closed');
  say('again', await listen(serve(), path.resolve('full.sock')));
  await meet('again');
  if (slot === 0) say((await ask({ path: 'full.sock' })).startsWith('from'), fs.statSync('full.sock').isSocket());
  done();
})();
