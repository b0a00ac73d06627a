// cluster.worker.disconnect(): the servers close, the channel closes, the process ends by itself.
'use strict';
const { cluster, done, listen, meet, net, say } = require('../play.js');
process.on('exit', (code) => {
  say('exit', code, cluster.worker.exitedAfterDisconnect);
  done();
});
process.on('disconnect', () => say('process disconnect', process.connected));
cluster.worker.on('disconnect', () => say('worker disconnect', cluster.worker.exitedAfterDisconnect));
(async () => {
  const server = net.createServer();
  server.on('close', () => say('server close'));
  say(await listen(server, 0, '127.0.0.1'));
  await meet('listening');
  say(cluster.worker.disconnect() === cluster.worker, cluster.worker.exitedAfterDisconnect);
})();
