// A WebSocket echo server beside plain HTTP: it knows nothing of clusters. An echo begins with the pid that gave it.
'use strict';
const http = require('node:http');
const { WebSocketServer } = require('ws');

const server = http.createServer((request, response) => response.end(JSON.stringify({ pid: process.pid })));
const sockets = new WebSocketServer({ server });
sockets.on('connection', (socket) => socket.on('message', (text) => socket.send(`${process.pid} ${text}`)));
server.listen(process.env.PORT);
