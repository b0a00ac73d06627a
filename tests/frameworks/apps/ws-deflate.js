// As the example in workers/node/websockets, with permessage-deflate. CONTEXT=kept: compressors remember earlier messages.
'use strict';
const http = require('node:http');
const { WebSocketServer } = require('ws');
const { moveWebSockets } = require('../../../workers/node/clusterd-ws');

const none = process.env.CONTEXT !== 'kept';
const perMessageDeflate = { serverNoContextTakeover: none, clientNoContextTakeover: none, threshold: 100 };
const server = http.createServer((request, response) => response.end(JSON.stringify({ pid: process.pid })));
const wss = new WebSocketServer({ noServer: true, perMessageDeflate });

function serve(ws, client) {
  ws.client = client;
  ws.on('message', (text) => ws.send(`${client.name} ${++client.count} ${process.pid} ${text}`));
}

server.on('upgrade', (request, socket, head) => {
  wss.handleUpgrade(request, socket, head, (ws) => serve(ws, { name: request.url, count: 0 }));
});
moveWebSockets(wss, { onHandover: (ws) => ws.client, onTakeover: serve });
server.listen(process.env.PORT);
