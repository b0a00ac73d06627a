// Holds WebSockets open and does what its stdin says: `node ws-client.js URL COUNT`. It prints one line per step:
//   "open"               all of them are open
//   "echoed PID..."      after the line "echo": every one of them has echoed, by these pids, in order
//   "closed CODE..."     after the line "close", or when the server has closed all of them
// Anything unexpected is an "error" line and exit code 1.
'use strict';
const readline = require('node:readline');
const WebSocket = require('ws');

const [url, count] = process.argv.slice(2);
const fail = (reason) => {
  console.log(`error ${reason}`);
  process.exit(1);
};
setTimeout(fail, 60_000, 'it takes too long').unref();
const next = (socket, event) => new Promise((resolve) => socket.once(event, resolve));
const sockets = Array.from({ length: Number(count) }, () => new WebSocket(url));
const closed = Promise.all(sockets.map((socket) => next(socket, 'close')));
for (const socket of sockets) socket.on('error', (error) => fail(error.message));

let echoes = 0;
async function echo() {
  const text = `message ${++echoes}`;
  const pids = await Promise.all(
    sockets.map(async (socket, number) => {
      const answer = next(socket, 'message');
      socket.send(`${text} on ${number}`);
      const [pid, ...rest] = String(await answer).split(' ');
      if (rest.join(' ') !== `${text} on ${number}`) fail(`not an echo: ${rest.join(' ')}`);
      return pid;
    }),
  );
  console.log(`echoed ${pids.join(' ')}`);
}

closed.then((codes) => {
  console.log(`closed ${codes.join(' ')}`);
  process.exit(0);
});
Promise.all(sockets.map((socket) => next(socket, 'open'))).then(() => {
  console.log('open');
  readline.createInterface({ input: process.stdin }).on('line', (line) => {
    if (line === 'echo') echo();
    else for (const socket of sockets) socket.close();
  });
});
