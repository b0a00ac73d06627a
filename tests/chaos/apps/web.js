// The web app of the chaos run. It names its release and repeats the path, so that a client knows its own answer.
// GET /exit ends the worker after the answer; GET /leave has it leave the cluster.
'use strict';
const cluster = require('node:cluster');
const http = require('node:http');

const leave = () => cluster.worker.disconnect();
http
  .createServer((request, response) => {
    response.end(JSON.stringify({ pid: process.pid, version: VERSION, path: request.url }));
    if (request.url === '/exit') setImmediate(() => process.exit(3));
    if (request.url === '/leave') setImmediate(leave);
  })
  .listen(process.env.PORT);
