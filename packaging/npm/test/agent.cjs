// The agent of the tests: answers what workers ask.
const { onMessage, send } = require('clusterd/worker');

onMessage((message, from) => {
  if (typeof from === 'object') send({ pid: from.pid }, `the agent got: ${message}`);
});
process.send('ready');
