// Worker threads are no cluster workers: each binds by itself, and a port that another one has is taken.
'use strict';
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');
const { cluster, done, listen, meet, net, say, slot } = require('../play.js');
if (isMainThread) {
  const answer = (data) => new Promise((resolve, reject) => {
    new Worker(__filename, { workerData: data }).once('message', resolve).once('error', reject);
  });
  (async () => {
    const [isWorker, first, port] = await answer(0);
    say('thread', isWorker, first);
    const ports = await meet('ports', port);
    say('own ports', new Set(ports).size);
    const [, second] = await answer(ports[1 - slot]);
    say('the other\'s port', second);
    await meet('end');
    done();
    process.exit();
  })();
} else {
  (async () => {
    const server = net.createServer();
    const said = await listen(server, workerData, '127.0.0.1');
    parentPort.postMessage([cluster.isWorker, said, server.address()?.port]);
  })();
}
