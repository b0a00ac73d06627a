// What the app sees of a connection that was handed to it.
'use strict';
const { close, done, listen, meet, net, once, say, slot } = require('../play.js');
(async () => {
  const server = net.createServer({ pauseOnConnect: false, allowHalfOpen: true, noDelay: true }, (socket) => {
    const { remoteAddress, remotePort, remoteFamily, localAddress, localPort } = socket;
    let heard = '';
    socket.setEncoding('utf8').on('data', (piece) => (heard += piece));
    socket.on('end', () => {
      socket.end(JSON.stringify({ remoteAddress, remotePort, remoteFamily, localAddress, localPort, heard }));
    });
  });
  say(await listen(server, 0, '127.0.0.1'));
  const [port] = await meet('port', server.address().port);
  if (slot === 0) {
    // Bytes that were sent before the hand-off, half-closed at once, and read after it.
    const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    socket.setEncoding('utf8').end('early words');
    let text = '';
    socket.on('data', (piece) => (text += piece));
    await once(socket, 'end');
    const seen = JSON.parse(text);
    say({ ...seen, remotePort: seen.remotePort > 0, localPort: seen.localPort === port });
  }
  await meet('asked');
  say('count', await new Promise((resolve) => server.getConnections((error, count) => resolve(count))));
  await close(server);

  const paused = net.createServer({ pauseOnConnect: true }, (socket) => {
    const flowing = socket.readableFlowing;
    socket.setEncoding('utf8').once('data', (text) => socket.end(`${flowing} ${text}`));
    socket.resume();
  });
  say(await listen(paused, 0, '127.0.0.1'));
  const [other] = await meet('paused', paused.address().port);
  if (slot === 0) {
    const socket = net.connect({ port: other, host: '127.0.0.1' }).setEncoding('utf8');
    socket.write('hello');
    say('paused', (await once(socket, 'data'))[0]);
    socket.destroy();
  }
  await meet('end');
  done();
})();
