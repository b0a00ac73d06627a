// Checked, not run: what a CommonJS module requires.
import clusterd = require('clusterd');
import worker = require('clusterd/worker');

const client = new clusterd.Clusterd();
const memory: (number | undefined)[] = [];
client.list((error, workers) => memory.push(error?.message.length, workers?.[0].monit.memory));
client.stop('web', { now: true }, (error, done) => memory.push(error?.message.length, done?.[0].message.length));
clusterd.connect((error, other) => memory.push(error?.message.length, other?.home.length));
memory.push(worker.generation);
export = memory;
