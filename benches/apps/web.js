// The app under measurement: the least that answers, and a job of 5 ms of CPU at /job. Each answer names its worker.
// READY_FILE gets a line with its pid once it listens.
'use strict';
const fs = require('node:fs');
const http = require('node:http');

const body = 'hello\n';
const JOB_US = 5000;

// CPU time, not time: with more workers than CPUs a worker that waits for its turn has not done its job meanwhile.
function job() {
  const start = process.cpuUsage();
  for (;;) {
    const { user, system } = process.cpuUsage(start);
    if (user + system >= JOB_US) return;
  }
}

http
  .createServer((request, response) => {
    if (request.url === '/job') job();
    response.writeHead(200, { 'content-length': body.length, 'x-worker': process.pid });
    response.end(body);
  })
  .listen(Number(process.env.PORT), '127.0.0.1', () => {
    if (process.env.READY_FILE) fs.appendFileSync(process.env.READY_FILE, `${process.pid}\n`);
  });
