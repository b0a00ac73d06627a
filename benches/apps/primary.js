// Node's own cluster primary around hello.js: `primary.js N round-robin|shared`.
'use strict';
const cluster = require('node:cluster');
const path = require('node:path');
cluster.schedulingPolicy = process.argv[3] === 'shared' ? cluster.SCHED_NONE : cluster.SCHED_RR;
cluster.setupPrimary({ exec: path.join(__dirname, 'hello.js'), args: [] });
cluster.on('exit', () => cluster.fork());
for (let n = 0; n < Number(process.argv[2]); n++) cluster.fork();
