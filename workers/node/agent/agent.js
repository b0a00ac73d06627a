// An agent: the one process of an app that does what every worker needs once. Here it counts what all of them have served,
// and tells each of them the sum.
'use strict';

let served = 0;

process.on('message', (message) => {
  if (message.action === 'served') {
    served += message.data;
    process.send({ action: 'total', data: served, to: 'app' });
  } else if (message.clusterd?.event === 'worker_ready') {
    console.log(`worker in slot ${message.clusterd.slot} is ready, pid ${message.clusterd.pid}`);
  }
});

// Workers start when it has said this.
process.send('ready');
