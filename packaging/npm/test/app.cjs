// A worker of the tests: says what it was given.
const http = require('node:http');
const { isClusterd, app, slot, generation } = require('clusterd/worker');

const server = http.createServer((request, response) => {
  console.log('answered');
  const args = process.argv.slice(2);
  response.end(JSON.stringify({ greeting: process.env.GREETING, args, isClusterd, app, slot, generation }));
});
server.listen(process.env.PORT || 0, () => console.log('listens'));
