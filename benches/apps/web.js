// The app under measurement: the least that answers, a job of 5 ms of CPU at /job and of 20 ms at /job20, and an answer
// after 200 ms at /wait. Each answer names its worker. With DELAY every answer comes after so many milliseconds.
// READY_FILE gets a line with its pid once it listens. With BLOCK_FIRST the first worker's event loop stands still for
// 2 s out of every 4, without using a CPU, and it answers as worker 1, so that the clients can tell it apart.
'use strict';
const fs = require('node:fs');
const http = require('node:http');

const body = 'hello\n';
const JOBS_US = { '/job': 5000, '/job20': 20000 };
const WAIT_MS = 200;
const delay = Number(process.env.DELAY ?? 0);

let name = process.pid;
if (process.env.BLOCK_FIRST) {
  const slot = process.env.CLUSTERD_SLOT ?? require('node:cluster').worker.id - 1;
  const nothing = new Int32Array(new SharedArrayBuffer(4));
  if (Number(slot) === 0) {
    name = 1;
    setInterval(() => Atomics.wait(nothing, 0, 0, 2000), 4000);
  }
}

// CPU time, not time: with more workers than CPUs a worker that waits for its turn has not done its job meanwhile.
function job(us) {
  const start = process.cpuUsage();
  for (;;) {
    const { user, system } = process.cpuUsage(start);
    if (user + system >= us) return;
  }
}

http
  .createServer((request, response) => {
    const us = JOBS_US[request.url];
    if (us) job(us);
    const wait = request.url === '/wait' ? WAIT_MS : delay;
    response.writeHead(200, { 'content-length': body.length, 'x-worker': name });
    if (wait > 0) setTimeout(() => response.end(body), wait);
    else response.end(body);
  })
  .listen(Number(process.env.PORT), '127.0.0.1', () => {
    if (process.env.READY_FILE) fs.appendFileSync(process.env.READY_FILE, `${process.pid}\n`);
  });
