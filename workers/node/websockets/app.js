// WebSockets that outlive their worker: each client has a counter, and a reload does not reset it. In this folder, after
// `npm install ws`: clusterd -c cluster.toml
'use strict';
const http = require('node:http');
const { WebSocketServer } = require('ws');
const { moveWebSockets } = require('../clusterd-ws');

const server = http.createServer((request, response) => response.end('a WebSocket server\n'));
const wss = new WebSocketServer({ server });

/// Everything that is to be known of a client is in `client`, so that it can be handed over.
function serve(ws, client) {
  ws.client = client;
  ws.on('message', (text) => {
    client.count += 1;
    ws.send(`${client.name} ${client.count} ${process.pid} ${text}`);
  });
}

wss.on('connection', (ws, request) => serve(ws, { name: request.url, count: 0 }));

moveWebSockets(wss, {
  onHandover: (ws) => ws.client,
  onTakeover: (ws, client) => serve(ws, client),
});

server.listen(process.env.PORT || 8080);
