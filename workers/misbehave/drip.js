// A connection that stays open until the client closes it: each line that it sends is answered with its number.
'use strict';
const net = require('node:net');
net
  .createServer((socket) => {
    let count = 0;
    socket.on('error', () => {});
    socket.on('data', () => socket.write(`${++count}\n`));
  })
  .listen(process.env.PORT);
