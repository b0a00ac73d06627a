// A connection that goes on for as long as the client likes: each line that it sends is answered with its number.
'use strict';
const net = require('node:net');
net
  .createServer((socket) => {
    let count = 0;
    socket.on('error', () => {});
    socket.on('data', () => socket.write(`${++count}\n`));
  })
  .listen(process.env.PORT);
