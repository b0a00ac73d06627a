// exclusive: the worker binds by itself.
'use strict';
const { ask, done, listen, meet, net, say, slot } = require('../play.js');
async function free() {
  const probe = net.createServer();
  await listen(probe, { port: 0, host: '127.0.0.1', exclusive: true });
  const { port } = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  return port;
}
(async () => {
  const server = net.createServer((socket) => socket.end(`from ${slot}`));
  say(await listen(server, { port: 0, host: '127.0.0.1', exclusive: true }));
  const port = server.address().port;
  const ports = await meet('ports', port);
  say('own ports', new Set(ports).size);
  say('only mine answer', await ask({ port, host: '127.0.0.1' }) === `from ${slot}`);
  const other = net.createServer();
  say('the other\'s port', await listen(other, { port: ports[1 - slot], host: '127.0.0.1', exclusive: true }));
  // Versions that do not know reusePort share the port.
  const [port2] = await meet('reuse', slot === 0 ? await free() : 0);
  const reuse = net.createServer((socket) => socket.end('reuse'));
  say('reusePort', await listen(reuse, { port: port2, host: '127.0.0.1', reusePort: true }));
  await meet('reused');
  if (slot === 0) say(await ask({ port: port2, host: '127.0.0.1' }));
  await meet('end');
  done();
})();
