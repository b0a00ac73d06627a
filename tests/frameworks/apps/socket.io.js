// A socket.io server beside plain HTTP: it knows nothing of clusters. An echo begins with the pid that gave it.
'use strict';
const http = require('node:http');
const { Server } = require('socket.io');

const server = http.createServer((request, response) => response.end(JSON.stringify({ pid: process.pid })));
new Server(server).on('connection', (socket) => socket.on('echo', (text, done) => done(`${process.pid} ${text}`)));
server.listen(process.env.PORT);
