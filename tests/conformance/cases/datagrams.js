// UDP: one socket for all workers, or one each.
'use strict';
const dgram = require('node:dgram');
const { done, meet, once, say, slot } = require('../play.js');
const bind = (socket, options) => new Promise((resolve) => {
  socket.once('error', (error) => resolve(error.code));
  socket.bind(options, () => resolve('ok'));
});
(async () => {
  const socket = dgram.createSocket('udp4');
  socket.on('message', (text, from) => socket.send(`heard ${text}`, from.port, from.address));
  say(await bind(socket, { port: 0, address: '127.0.0.1' }));
  const ports = await meet('shared', socket.address().port);
  say('one port for all', new Set(ports).size, socket.address().address, socket.address().family);
  if (slot === 0) {
    const client = dgram.createSocket('udp4');
    client.send('a word', ports[0], '127.0.0.1');
    say(String((await once(client, 'message'))[0]));
    client.close();
  }
  const own = dgram.createSocket('udp4');
  say('exclusive', await bind(own, { port: 0, address: '127.0.0.1', exclusive: true }));
  const owned = await meet('own', own.address().port);
  say('own ports', new Set(owned).size);
  say('taken', await bind(dgram.createSocket('udp4'), { port: owned[1 - slot], address: '127.0.0.1' }));
  const six = dgram.createSocket({ type: 'udp6', ipv6Only: true });
  say('six', await bind(six, { port: 0 }), six.address().address);
  await meet('end');
  done();
})();
