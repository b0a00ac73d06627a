// Abuses the channel to the primary in the way that MODE names, one second's fraction after it serves; answers like hello.
'use strict';
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');

const server = http.createServer((request, response) => {
  if (request.url === '/abuse') abuse();
  response.end(JSON.stringify({ pid: process.pid, acks }) + '\n');
});
let acks = 0;

function abuse() {
  switch (process.env.MODE) {
    case 'garbage': // Bytes that are not a line of the protocol, past Node's own writer.
      fs.writeSync(process.channel.fd ?? 3, 'this is \u001b[31mnot the protocol\n');
      break;
    case 'handles': // Node sends nothing more before each of these is acknowledged.
      process.send('a server', net.createServer().listen(0), () => acks++);
      process.send('a socket', new net.Socket(), () => acks++);
      process.send('plain', () => acks++);
      break;
    case 'big': {
      const big = 'x'.repeat(5 * 1024 * 1024) + '\u2028\u2029\n';
      process.send({ big }, () => acks++);
      process.send(big, () => acks++);
      break;
    }
    case 'block': {
      const end = Date.now() + 3000;
      while (Date.now() < end);
      break;
    }
  }
}

server.listen(process.env.PORT);
