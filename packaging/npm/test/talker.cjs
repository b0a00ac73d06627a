// A worker of the tests that asks the agent.
const http = require('node:http');
const { onMessage, send } = require('clusterd/worker');

const server = http.createServer(async (request, response) => {
  const answer = new Promise((resolve) => {
    const end = onMessage((message) => {
      end();
      resolve(message);
    });
  });
  await send('agent', 'question');
  const failed = await send({ slot: 77 }, 'nobody').then(() => 'it arrived', (error) => error.message);
  response.end(JSON.stringify({ answer: await answer, failed }));
});
server.listen(process.env.PORT || 0, '127.0.0.1');
