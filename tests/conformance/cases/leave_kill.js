// cluster.worker.kill() in the worker itself.
'use strict';
const { cluster, done, listen, meet, net, say } = require('../play.js');
process.on('exit', (code) => {
  say('exit', code, cluster.worker.exitedAfterDisconnect);
  done();
});
process.on('disconnect', () => say('process disconnect'));
cluster.worker.on('disconnect', () => say('worker disconnect'));
(async () => {
  say(await listen(net.createServer(), 0, '127.0.0.1'));
  await meet('listening');
  cluster.worker.kill();
})();
