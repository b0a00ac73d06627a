// Answers /slow after SLOW_MS; deaf to SIGTERM where DEAF is set.
'use strict';
const http = require('node:http');
if (process.env.DEAF) process.on('SIGTERM', () => {});
http
  .createServer((request, response) => {
    const body = JSON.stringify({ pid: process.pid, port: process.env.PORT, slot: process.env.NODE_APP_INSTANCE }) + '\n';
    setTimeout(() => response.end(body), request.url === '/slow' ? Number(process.env.SLOW_MS || 1000) : 0);
  })
  .listen(process.env.PORT);
setInterval(() => {}, 1000);
