// The app of the fleet: says which host and which release answers.
const fs = require('node:fs');
const http = require('node:http');

const release = fs.readFileSync('release', 'utf8').trim();
const server = http.createServer((request, response) => {
  let bytes = 0;
  request.on('data', (piece) => (bytes += piece.length));
  request.on('end', () => response.end(JSON.stringify({ host: process.env.FLEET_HOST, release, bytes })));
});
// Longer than HAProxy keeps connections.
server.keepAliveTimeout = 75_000;
server.listen(process.env.PORT || 8080);
