// Node's own cluster as the reference: `primary.js rr|shared N CASE` runs CASE in N workers and starts none again.
// SIGUSR2 disconnects them all.
'use strict';
const cluster = require('node:cluster');
const path = require('node:path');
const [policy, count, name] = process.argv.slice(2);
cluster.schedulingPolicy = policy === 'shared' ? cluster.SCHED_NONE : cluster.SCHED_RR;
cluster.setupPrimary({ exec: path.join(__dirname, 'worker.js'), args: [name] });
for (let slot = 0; slot < Number(count); slot++) cluster.fork({ CASE_SLOT: slot });
process.on('SIGUSR2', () => cluster.disconnect());
process.on('SIGTERM', () => process.exit(0));
setInterval(() => {}, 1 << 30);
