// The app under measurement: the least that answers. Run by clusterd, or by benches/apps/primary.js.
'use strict';
const http = require('node:http');
const body = 'hello\n';
http
  .createServer((request, response) => {
    response.writeHead(200, { 'content-length': body.length, connection: 'close' });
    response.end(body);
  })
  .listen(Number(process.env.PORT), '127.0.0.1');
