// The uncaughtException pattern: on /leave it answers, closes its server, disconnects, and ends a while later by itself.
'use strict';
const cluster = require('node:cluster');
const http = require('node:http');

const server = http.createServer((request, response) => {
  response.end(JSON.stringify({ pid: process.pid }) + '\n');
  if (request.url === '/leave') setImmediate(() => { throw new Error('something broke'); });
});
process.on('uncaughtException', () => {
  server.close();
  cluster.worker.disconnect();
  setTimeout(() => process.exit(1), 60000);
});
server.listen(process.env.PORT);
