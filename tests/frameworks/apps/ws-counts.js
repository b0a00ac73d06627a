// Keeps WebSockets busy: `node ws-counts.js URL COUNT [deflate]`. Each client sends a numbered message every now and then; its answer
// says how many messages of this client were counted. Lines on stdout:
//   "open"       all of them are open and have had an answer
//   JSON         after the line "stop", and the last answer or the last close: what all of them saw
'use strict';
const readline = require('node:readline');
const WebSocket = require('ws');

const [url, count, deflate] = process.argv.slice(2);
const seen = { sent: 0, answered: 0, closed: 0, wrong: [], pids: {} };
let stopped = false;
let awaited = 0;
const finish = () => {
  console.log(JSON.stringify(seen));
  process.exit(0);
};
const finishIfOver = () => (awaited === 0 || seen.closed === Number(count)) && finish();
setTimeout(() => finish(seen.wrong.push(`${awaited} answers did not come`)), 100_000).unref();

function run(n) {
  return new Promise((resolve) => {
    const ws = new WebSocket(`${url}/${n}`, { perMessageDeflate: deflate === 'deflate' });
    let sent = 0;
    let answered = 0;
    const next = () => {
      if (stopped || ws.readyState !== WebSocket.OPEN) return;
      // Long enough to be compressed now and then.
      ws.send(`${++sent} ${'x'.repeat(sent % 3 === 0 ? 2000 : 10)}`);
      seen.sent += 1;
      awaited += 1;
      setTimeout(next, 20 + Math.random() * 40);
    };
    ws.on('open', next);
    ws.on('error', (error) => seen.wrong.push(error.message));
    ws.on('close', (code) => {
      seen.closed += 1;
      seen.wrong.push(`client ${n} was closed with ${code}`);
      if (stopped) finishIfOver();
    });
    ws.on('message', (text) => {
      const [name, number, pid, echoed] = String(text).split(' ');
      answered += 1;
      if (name !== `/${n}` || Number(number) !== answered || Number(echoed) !== answered) seen.wrong.push(`${text}`.slice(0, 60));
      seen.answered += 1;
      seen.pids[pid] = (seen.pids[pid] ?? 0) + 1;
      resolve();
      awaited -= 1;
      if (stopped) finishIfOver();
    });
  });
}

Promise.all(Array.from({ length: Number(count) }, (_, n) => run(n))).then(() => {
  console.log('open');
  readline.createInterface({ input: process.stdin }).on('line', () => {
    stopped = true;
    finishIfOver();
  });
});
