// A worker of the tests with WebSockets, each of which has a count of its messages.
const http = require('node:http');
const { WebSocketServer } = require('ws');
const { moveWebSockets } = require('clusterd/worker');

const server = http.createServer((request, response) => response.end());
const wss = new WebSocketServer({ server });
function serve(ws, client) {
  ws.client = client;
  ws.on('message', (text) => ws.send(JSON.stringify({ count: (client.count += 1), pid: process.pid, text: String(text) })));
}
wss.on('connection', (ws) => serve(ws, { count: 0 }));
const moves = moveWebSockets(wss, { onHandover: (ws) => ws.client, onTakeover: serve });
if (!moves) throw new Error('WebSockets do not move');
server.listen(process.env.PORT, '127.0.0.1');
