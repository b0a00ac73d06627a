// Port 0 is one port for all; several servers; closing and listening again; IPv4, IPv6 and both.
'use strict';
const { ask, close, done, listen, meet, net, say, slot } = require('../play.js');
const serve = () => net.createServer((socket) => socket.end(`from ${slot}`));
(async () => {
  const first = serve();
  say(await listen(first, 0));
  const port = first.address().port;
  say('address', { ...first.address(), port: 'n' });
  say('one port for all', new Set(await meet('first', port)).size);
  const answers = [];
  if (slot === 0) for (let n = 0; n < 4; n++) answers.push(await ask({ port, host: '127.0.0.1' }));
  // Not in which order: Node's own turns depend on whose answer comes first.
  say('turns', new Set(answers).size);
  if (slot === 0) say('six', (await ask({ port, host: '::1' })).startsWith('from'));

  const second = serve();
  say('a second server', await listen(second, 0, '127.0.0.1'));
  say('address', { ...second.address(), port: 'n' }, second.address().port !== port);
  const ports = await meet('second', second.address().port);
  say('one port for all', new Set(ports).size);
  if (slot === 0) say('answers', (await ask({ port: ports[0], host: '127.0.0.1' })).startsWith('from'));

  const clash = serve();
  say('the same port twice', await listen(clash, port));
  await meet('clash');

  await close(second);
  say('closed', second.listening, second.address());
  // Who has its answer to something later knows that the primary has read that it closed.
  const later = serve();
  await listen(later, 0);
  await meet('closed');
  await close(later);
  const again = serve();
  say('again', await listen(again, ports[0], '127.0.0.1'), again.address().port === ports[0]);
  await meet('again');
  if (slot === 0) {
    const seen = [];
    for (let n = 0; n < 4; n++) seen.push(await ask({ port: ports[0], host: '127.0.0.1' }));
    say('turns again', new Set(seen).size);
  }
  await meet('asked');

  const six = serve();
  say('only six', await listen(six, { port: 0, host: '::', ipv6Only: true }), six.address().family);
  const sixth = await meet('six', six.address().port);
  if (slot === 0) say(await ask({ port: sixth[0], host: '127.0.0.1' }), (await ask({ port: sixth[0], host: '::1' })).startsWith('from'));
  const local = serve();
  say('by name', await listen(local, 0, 'localhost'));
  done();
})();
