// The agent of the tests: answers what workers ask.
const { onEvent, onMessage, ready, send } = require('clusterd/worker');

const events = [];
onEvent(({ event }) => events.push(event));
onMessage((message, from) => {
  if (typeof from === 'object') send({ pid: from.pid }, { text: `the agent got: ${message}`, events });
});
ready();
