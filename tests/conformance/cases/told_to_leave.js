// The primary disconnects its workers: each closes its servers, open connections may finish, then the channel closes
// and the process ends.
'use strict';
const { cluster, done, listen, meet, net, once, say, slot } = require('../play.js');
let heard = '';
process.on('exit', (code) => {
  // When this comes besides the server's end is the client's affair.
  if (slot === 0) say('heard', heard.replace('please\n', ''));
  say('exit', code, cluster.worker.exitedAfterDisconnect);
  done();
});
// clusterd asks a worker to end that has no connection left; this one ends by itself, after its client has.
process.on('SIGTERM', () => {});
process.on('disconnect', () => say('process disconnect'));
(async () => {
  const server = net.createServer((socket) => {
    socket.on('error', () => {}).write('first words, ');
    // The last words come when the server listens no more.
    const timer = setInterval(() => {
      if (!server.listening) {
        clearInterval(timer);
        socket.end('last words');
      }
    }, 2);
  });
  server.once('close', () => say('server close'));
  say(await listen(server, 0, '127.0.0.1'));
  const [port] = await meet('port', server.address().port);
  if (slot !== 0) return;
  const client = require('node:child_process').spawn(process.execPath, ['-e', `
    require('node:net').connect(${port}, '127.0.0.1').once('data', () => console.log('please')).pipe(process.stdout)`]);
  client.stdout.setEncoding('utf8').on('data', (piece) => {
    if (heard === '') say('please');
    heard += piece;
  });
  await once(client, 'close');
})();
