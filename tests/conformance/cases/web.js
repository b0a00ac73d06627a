// An http server: kept-alive connections stay where they are, upgrades and big bodies pass.
'use strict';
const http = require('node:http');
const { cluster, done, listen, meet, say, slot } = require('../play.js');
const request = (options, body) => new Promise((resolve, reject) => {
  const sent = http.request({ host: '127.0.0.1', ...options }, (answer) => {
    let text = '';
    answer.setEncoding('utf8').on('data', (piece) => (text += piece)).on('end', () => resolve({ text, headers: answer.headers }));
  });
  sent.on('error', reject).end(body);
});
(async () => {
  const server = http.createServer((asked, answer) => {
    let size = 0;
    asked.on('data', (piece) => (size += piece.length)).on('end', () => answer.end(`${slot} ${size}`));
  });
  server.on('upgrade', (asked, socket) => socket.end('HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nhi'));
  say(await listen(server, 0, '127.0.0.1'));
  const [port] = await meet('port', server.address().port);
  if (slot === 0) {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    const kept = new Set();
    for (let n = 0; n < 5; n++) kept.add((await request({ port, agent })).text);
    say('kept alive', kept.size);
    agent.destroy();
    const fresh = new Set();
    for (let n = 0; n < 4; n++) fresh.add((await request({ port, agent: false })).text);
    say('fresh', fresh.size);
    say('big', (await request({ port, method: 'POST' }, Buffer.alloc(3_000_000))).text.split(' ')[1]);
    const upgraded = await new Promise((resolve) => {
      http.request({ port, host: '127.0.0.1', headers: { connection: 'upgrade', upgrade: 'x' } })
        .on('upgrade', (answer, socket, head) => (head.length ? resolve(String(head)) : socket.once('data', (b) => resolve(String(b))))).end();
    });
    say('upgraded', upgraded, cluster.worker.isConnected());
  }
  await meet('asked');
  done();
})();
