// listen({ fd }): a socket that the primary was started with.
'use strict';
const { ask, done, listen, meet, net, say, slot } = require('../play.js');
(async () => {
  const server = net.createServer((socket) => socket.end(`from ${slot}`));
  say(await listen(server, { fd: 3 }));
  await meet('listening');
  if (slot === 0) {
    const seen = new Set();
    for (let n = 0; n < 4; n++) seen.add(await ask({ port: Number(process.env.INHERITED_PORT), host: '127.0.0.1' }));
    say('turns', seen.size);
  }
  await meet('end');
  done();
})();
