// listen() fails in the app with the system's own code.
'use strict';
const { done, fs, listen, meet, net, say, slot } = require('../play.js');
(async () => {
  const holder = net.createServer();
  const taken = slot === 0 ? (await listen(holder, { port: 0, host: '127.0.0.1', exclusive: true }), holder.address().port) : 0;
  const [port] = await meet('taken', taken);
  const server = net.createServer();
  say('taken', await listen(server, port, '127.0.0.1'), server.listening);
  say('not ours', await listen(net.createServer(), 0, '203.0.113.7'));
  say('no such folder', await listen(net.createServer(), 'no/such/folder.sock'));
  if (slot === 0) fs.writeFileSync('file', '');
  await meet('file');
  say('a file is in the way', await listen(net.createServer(), 'file'), fs.statSync('file').isFile());
  say('no such fd', await listen(net.createServer(), { fd: 4321 }));
  const shape = net.createServer();
  const error = await new Promise((resolve) => shape.on('error', resolve).listen(0, '203.0.113.8'));
  say('shape', error.syscall, error.address, error.port, error.code, error.errno);
  done();
})();
