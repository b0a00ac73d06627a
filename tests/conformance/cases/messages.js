// process.send: order, size, odd characters, handles. Nobody on the other side listens; nothing may get stuck for that.
'use strict';
const { done, listen, meet, net, say } = require('../play.js');
const send = (...args) => new Promise((resolve) => process.send(...args, (error) => resolve(error ? error.code : 'sent')));
(async () => {
  say('small', await send('hello'), await send({ a: [1, null, 'x'] }), await send(7), await send(true));
  say('line ends', await send('\u2028 \u2029 \n \r \0 \\ "'), await send({ cmd: 'not internal' }));
  const parts = [];
  for (let n = 0; n < 8; n++) parts.push(send({ n, text: 'x\u2028'.repeat(400_000) }));
  say('big', await Promise.all(parts));
  const server = net.createServer();
  say(await listen(server, 0, '127.0.0.1'));
  const client = net.connect(server.address().port, '127.0.0.1');
  await new Promise((resolve) => client.once('connect', resolve));
  say('a socket', await send('take this', client));
  const own = net.createServer();
  await listen(own, { port: 0, exclusive: true });
  say('a server', await send({ take: 'this' }, own));
  say('afterwards', await send('still here'));
  const udp = require('node:dgram').createSocket('udp4');
  await new Promise((resolve) => udp.bind({ port: 0, exclusive: true }, resolve));
  say('a datagram socket', await send('and this', udp), await send('the end'));
  try {
    process.send(undefined);
  } catch (error) {
    say(error.code);
  }
  await meet('end');
  done();
})();
