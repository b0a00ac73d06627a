// A worker that is full refuses, and the connection goes to another.
'use strict';
const { done, listen, meet, net, once, say, slot } = require('../play.js');
const open = async (port) => {
  const socket = net.connect({ port, host: '127.0.0.1' });
  socket.setEncoding('utf8');
  const [who] = await once(socket, 'data');
  return { socket, who };
};
(async () => {
  const server = net.createServer((socket) => socket.on('error', () => {}).write(`from ${slot}`));
  server.maxConnections = 1;
  say(await listen(server, 0, '127.0.0.1'));
  const [port] = await meet('port', server.address().port);
  if (slot === 0) {
    const one = await open(port);
    const two = await open(port);
    say('two workers', one.who !== two.who);
    one.socket.destroy();
    const three = await open(port);
    say('whoever has room', three.who === one.who);
    two.socket.destroy();
    three.socket.destroy();
  }
  await meet('asked');
  done();
})();
