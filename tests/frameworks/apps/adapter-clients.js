// adapter-clients.js PORT: eight clients of apps/adapter.js, each from an address of its own, by polling alone. Each says one
// thing, and each has to hear all eight; any of them counts all. Prints the number of workers that they reached.
'use strict';
const { Agent } = require('http');
const { io } = require('socket.io-client');
const COUNT = 8;
const [port] = process.argv.slice(2);
const fail = (error) => {
  console.error(error);
  process.exit(1);
};
setTimeout(fail, 60_000, 'it takes too long').unref();
(async () => {
  const sockets = [];
  for (let n = 0; n < COUNT; n++) {
    const agent = new Agent({ localAddress: `127.0.0.${10 + n}`, keepAlive: false });
    const socket = io(`http://127.0.0.1:${port}`, { transports: ['polling'], agent, reconnection: false });
    socket.on('connect_error', fail).on('disconnect', fail);
    sockets.push(socket);
  }
  await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once('connect', resolve))));
  const heard = sockets.map((socket) => new Promise((resolve) => {
    const words = new Set();
    socket.on('said', (text) => {
      words.add(text);
      if (words.size === COUNT) resolve();
    });
  }));
  // A worker whose adapter has not met the others yet counts only its own.
  const count = (socket) => new Promise((resolve) => socket.emit('count', resolve));
  while (await count(sockets[0]) < COUNT);
  sockets.forEach((socket, n) => socket.emit('say', `client ${n}`));
  await Promise.all(heard);
  const pids = await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.emit('who', resolve))));
  console.log(new Set(pids).size);
  process.exit(0);
})().catch(fail);
