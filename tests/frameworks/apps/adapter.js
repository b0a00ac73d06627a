// socket.io with its cluster adapter, and the worker's half of @socket.io/sticky: a message of one client goes to all.
'use strict';
const server = require('http').createServer((asked, answer) => answer.end());
const io = new (require('socket.io').Server)(server);
io.adapter(require('@socket.io/cluster-adapter').createAdapter());
require('@socket.io/sticky').setupWorker(io);
io.on('connection', (socket) => {
  socket.on('say', (words) => io.emit('said', words));
  socket.on('count', async (answer) => answer((await io.fetchSockets()).length));
  socket.on('who', (answer) => answer(process.pid));
});
io.on('add', (number, answer) => answer(process.pid + number));
server.listen(process.env.PORT);
