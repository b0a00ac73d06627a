// 0.0.0.0 and :: are two addresses of one port, abstract names have no file, and a refused TLS server gets its error.
'use strict';
const tls = require('node:tls');
const { ask, close, done, fs, listen, meet, net, say, slot } = require('../play.js');
const serve = (word) => net.createServer((socket) => socket.end(word));
(async () => {
  const free = net.createServer();
  await listen(free, { port: 0, host: '0.0.0.0', exclusive: true });
  const port = (await meet('port', free.address().port))[0];
  await close(free);
  await meet('free');
  const four = serve('four');
  say('four', await listen(four, { port, host: '0.0.0.0' }));
  const six = serve('six');
  say('six', await listen(six, { port, host: '::', ipv6Only: true }));
  await meet('both');
  say(await ask({ port, host: '127.0.0.1' }), await ask({ port, host: '::1' }));
  // The other way round, without ipv6Only, the kernel refuses.
  say('dual', await listen(serve('dual'), { port, host: '::' }));
  await meet('asked');
  const link = Object.entries(require('node:os').networkInterfaces()).flatMap(([name, all]) =>
    all.filter((one) => one.address.startsWith('fe80')).map((one) => `${one.address}%${name}`))[0];
  say('link', link === undefined || (await listen(serve('link'), { port: 0, host: link })) === 'ok');
  const taken = net.createServer();
  if (slot === 0) await listen(taken, { port: 0, host: '127.0.0.1', exclusive: true });
  const its = (await meet('taken', slot === 0 ? taken.address().port : 0))[0];
  say('taken', await listen(tls.createServer({}), its, '127.0.0.1'));
  await meet('end');
  done();
})();
