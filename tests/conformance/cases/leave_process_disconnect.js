// process.disconnect(): the channel goes without a word.
'use strict';
const { cluster, done, listen, meet, net, say } = require('../play.js');
process.on('exit', (code) => {
  say('exit', code, cluster.worker.exitedAfterDisconnect);
  done();
});
process.on('disconnect', () => say('process disconnect'));
(async () => {
  say(await listen(net.createServer(), 0, '127.0.0.1'));
  await meet('listening');
  process.disconnect();
  try {
    process.send('too late');
  } catch (error) {
    say(error.code);
  }
  process.on('error', (error) => say('error', error.code));
})();
