// TLS: the workers share the ticket keys of the first, so that a session continues in any worker.
'use strict';
const tls = require('node:tls');
const { done, listen, meet, say } = require('../play.js');
(async () => {
  const server = tls.createServer({});
  say(await listen(server, 0, '127.0.0.1'));
  const keys = await meet('keys', server.getTicketKeys().toString('hex'));
  say('shared keys', new Set(keys).size, keys[0].length);
  done();
})();
