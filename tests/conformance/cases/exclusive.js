// exclusive: the worker binds by itself.
'use strict';
const { ask, done, listen, meet, net, say, slot } = require('../play.js');
(async () => {
  const server = net.createServer((socket) => socket.end(`from ${slot}`));
  say(await listen(server, { port: 0, host: '127.0.0.1', exclusive: true }));
  const port = server.address().port;
  const ports = await meet('ports', port);
  say('own ports', new Set(ports).size);
  say('only mine answer', await ask({ port, host: '127.0.0.1' }) === `from ${slot}`);
  const other = net.createServer();
  say('the other\'s port', await listen(other, { port: ports[1 - slot], host: '127.0.0.1', exclusive: true }));
  await meet('end');
  done();
})();
