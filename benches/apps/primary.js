// Node's own cluster primary around web.js: `primary.js N round-robin|shared`. What Node's documentation shows, and no more:
// a worker that dies is forked again; SIGHUP replaces one worker after the other and says "reloaded".
'use strict';
const cluster = require('node:cluster');
const { once } = require('node:events');
const path = require('node:path');

const LEAVE_MS = 2000;

cluster.schedulingPolicy = process.argv[3] === 'shared' ? cluster.SCHED_NONE : cluster.SCHED_RR;
cluster.setupPrimary({ exec: path.join(__dirname, 'web.js'), args: [] });
cluster.on('exit', (worker) => {
  if (!worker.exitedAfterDisconnect) cluster.fork();
});
for (let n = 0; n < Number(process.argv[2]); n++) cluster.fork();

process.on('SIGHUP', async () => {
  for (const old of Object.values(cluster.workers)) {
    await once(cluster.fork(), 'listening');
    const timer = setTimeout(() => old.kill('SIGKILL'), LEAVE_MS);
    old.disconnect();
    await once(old, 'exit');
    clearTimeout(timer);
  }
  console.log('reloaded');
});
