// Who a worker is, and what it can see of the channel.
'use strict';
const { cluster, done, listen, meet, net, say } = require('../play.js');
(async () => {
  say('is', cluster.isWorker, cluster.isPrimary, cluster.isMaster);
  say('id', typeof cluster.worker.id, cluster.worker.id > 0, cluster.worker.process === process);
  say('ids', (await meet('id', cluster.worker.id)).sort());
  say('connected', process.connected, cluster.worker.isConnected(), cluster.worker.isDead());
  say('left', cluster.worker.exitedAfterDisconnect);
  say('environment', process.env.NODE_UNIQUE_ID, process.env.NODE_CHANNEL_FD, process.env.NODE_CHANNEL_SERIALIZATION_MODE);
  say('channel', typeof process.send, process.channel !== undefined, typeof process.disconnect);
  const server = net.createServer();
  server.on('listening', () => say('listening'));
  cluster.worker.on('listening', () => say('never: that is the primary\'s'));
  say(await listen(server, 0, '127.0.0.1'));
  const grandchild = require('node:child_process').spawnSync(process.execPath, [
    '-p', 'String([require("node:cluster").isWorker, process.send, process.env.NODE_UNIQUE_ID])',
  ]);
  say('grandchild', grandchild.stdout.toString().trim());
  done();
})();
