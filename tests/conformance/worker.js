// One worker of a case: `worker.js CASE`. A slot plays once: who comes after a worker that left only waits.
'use strict';
const fs = require('node:fs');
const path = require('node:path');
const play = require('./play.js');
let first = true;
try {
  fs.closeSync(fs.openSync(`life.${play.slot}`, 'wx'));
} catch {
  first = false;
}
if (first) {
  process.on('uncaughtException', (error) => play.say('uncaught', String(error.stack)));
  require(path.join(__dirname, 'cases', `${process.argv[2]}.js`));
} else {
  setInterval(() => {}, 1 << 30);
}
