// What the cases share: lines for the transcript, meetings of workers, and small clients. Workers meet by files in the
// current folder, so that nothing but the primary under test stands between them.
'use strict';
const cluster = require('node:cluster');
const fs = require('node:fs');
const net = require('node:net');
const { once } = require('node:events');

const slot = Number(process.env.CLUSTERD_SLOT ?? process.env.CASE_SLOT);
const say = (...what) => fs.writeSync(1, `${slot} ${JSON.stringify(what)}\n`);

/// Waits until a file is there; its text.
async function read(name) {
  for (;;) {
    try {
      const text = fs.readFileSync(name, 'utf8');
      if (text.endsWith('\n')) return JSON.parse(text);
    } catch (error) {
      if (error.code !== 'ENOENT') throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/// Every worker arrives here before any of them continues; the values that they brought, by slot.
async function meet(name, value = null, count = 2) {
  fs.writeFileSync(`${name}.${slot}`, `${JSON.stringify(value)}\n`);
  const values = [];
  for (let other = 0; other < count; other++) values.push(await read(`${name}.${other}`));
  return values;
}

/// listen() to its end: 'ok', or the code of the error.
function listen(server, ...args) {
  return new Promise((resolve) => {
    const failed = (error) => resolve(error.code);
    server.once('error', failed);
    server.listen(...args, () => {
      server.off('error', failed);
      resolve('ok');
    });
  });
}

/// Connects and reads until the other side ends.
function ask(where) {
  return new Promise((resolve) => {
    const socket = net.connect(where);
    let text = '';
    socket.setEncoding('utf8');
    socket.on('data', (piece) => (text += piece));
    socket.on('error', (error) => resolve(error.code));
    socket.on('end', () => resolve(text));
  });
}

const close = (server) => new Promise((resolve) => server.close(resolve));
const done = () => say('done');

module.exports = { ask, close, cluster, done, fs, listen, meet, net, once, read, say, slot };
