// A socket ends with the last server that has it open: the port is free for anybody, and clients are refused.
'use strict';
const dgram = require('node:dgram');
const { ask, close, done, fs, listen, meet, net, say, slot } = require('../play.js');
/// Tries until it is so: the primary hears of a close after the worker.
async function comes(is) {
  for (let n = 0; n < 500; n++) {
    if (await is()) return true;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return false;
}
const bound = (port) => new Promise((resolve) => {
  const own = net.createServer();
  own.once('error', () => resolve(false));
  own.listen({ port, host: '127.0.0.1', exclusive: true }, () => own.close(() => resolve(true)));
});
(async () => {
  // What get-port, portfinder and detect-port do.
  const probe = net.createServer();
  await listen(probe, { port: 0, host: '127.0.0.1' });
  const ports = await meet('port', probe.address().port);
  say('one port', new Set(ports).size);
  await close(probe);
  await meet('closed');
  if (slot === 0) say('free', await comes(() => bound(ports[0])));
  await meet('tried');
  // A file of a socket goes with it.
  const local = net.createServer();
  await listen(local, 'local.sock');
  await meet('local');
  await close(local);
  await meet('local closed');
  if (slot === 0) say('file gone', await comes(() => !fs.existsSync('local.sock')));
  await meet('looked');
  // As long as one has it open it stays.
  const kept = net.createServer((socket) => socket.end('kept'));
  await listen(kept, { port: 0, host: '127.0.0.1' });
  const at = (await meet('kept', kept.address().port))[0];
  if (slot === 1) await close(kept);
  await meet('left');
  if (slot === 0) say('kept', await ask({ port: at, host: '127.0.0.1' }));
  await meet('asked');
  // Twice in one process, as mDNS libraries do.
  // (Node 26 itself fails an assertion at the second one.)
  const sockets = Number(process.versions.node.split('.')[0]) < 26 ? 2 : 1;
  const twice = Array.from({ length: sockets }, () => dgram.createSocket({ type: 'udp4', reuseAddr: true }));
  const port = (await meet('udp', ports[0]))[0];
  const bind = (socket) => new Promise((resolve) => {
    socket.once('error', (error) => resolve(error.code));
    socket.bind(port, '127.0.0.1', () => resolve('ok'));
  });
  for (const socket of twice) say('twice', await bind(socket));
  await meet('end');
  done();
})();
