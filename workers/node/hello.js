// A plain web app: it knows nothing of clusterd. `node hello.js` alone works just as well.
'use strict';
const http = require('node:http');

const server = http.createServer((request, response) => {
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({ hello: 'world', pid: process.pid, slot: process.env.CLUSTERD_SLOT }) + '\n');
});

server.listen(process.env.PORT || 8080);
