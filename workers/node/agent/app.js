// A web app whose workers share a number through the agent. Alone (node app.js) it works too, and counts for itself.
'use strict';
const http = require('node:http');

let total = 0;

process.on('message', (message) => {
  if (message.action === 'total') total = message.data;
});

http
  .createServer((request, response) => {
    if (process.send) process.send({ action: 'served', data: 1, to: 'agent' });
    else total += 1;
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ total, pid: process.pid }) + '\n');
  })
  .listen(process.env.PORT || 8080);
