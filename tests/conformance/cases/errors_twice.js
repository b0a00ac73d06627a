// A listen() that failed leaves nothing behind: it fails again while the port is taken, and works once it is free.
// (Not played where workers share: there, Node 22 to 26 themselves fail an assertion on the second failure.)
'use strict';
const { close, done, listen, meet, net, say, slot } = require('../play.js');
(async () => {
  const holder = net.createServer();
  const taken = slot === 0 ? (await listen(holder, { port: 0, host: '127.0.0.1', exclusive: true }), holder.address().port) : 0;
  const [port] = await meet('taken', taken);
  for (const attempt of [1, 2]) {
    const server = net.createServer();
    say('taken', attempt, await listen(server, port, '127.0.0.1'), server.listening);
  }
  await meet('tried');
  if (slot === 0) await close(holder);
  await meet('free');
  const server = net.createServer();
  say('free', await listen(server, port, '127.0.0.1'), server.address().port === port);
  done();
})();
