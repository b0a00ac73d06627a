// Answers with its slot; the first slot's event loop stands still for 2 s out of every 4, without using a CPU.
const slot = process.env.CLUSTERD_SLOT;
const nothing = new Int32Array(new SharedArrayBuffer(4));
require('http').createServer((request, response) => response.end(`slot ${slot}\n`)).listen(process.env.PORT);
if (slot === process.env.BLOCKED_SLOT) {
  setInterval(() => Atomics.wait(nothing, 0, 0, 2000), 4000);
}
