'use strict';
// Gives what a configuration file exports to clusterd, as one line of JSON behind a mark on stdout; or, on stderr, why not.
const { writeSync } = require('fs');
const { pathToFileURL } = require('url');
const [file, mark] = process.argv.slice(1);

const say = (fd, text, code) => {
  const bytes = Buffer.from(`\n${mark}${text}\n`);
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
  process.exit(code);
};

const fail = (error) => {
  // Whoever wrote the file may have written the stack: nothing in it may cost more than its length.
  const stack = String((error && error.stack) || error).slice(0, 100000).split('\n');
  const places = stack.map((line) => line.split(`${file}:`)).filter((parts) => parts.length > 1);
  const number = places.length > 0 && /^\d{1,9}/.exec(places[0][1]);
  if (error && error.code === 'ERR_UNKNOWN_FILE_EXTENSION' && /\.[cm]?ts$/.test(file)) {
    say(2, `Node ${process.version} reads no TypeScript (22.18 and later do); compile it, or write it in JavaScript`, 1);
  }
  const what = error instanceof Error || (error && error.message) ? `${error.name}: ${error.message}` : String(error);
  say(2, what.split('\n')[0] + (number ? ` (line ${number[0]})` : ''), 1);
};

// JSON knows neither patterns nor large numbers; functions are left out, as PM2 does.
const plain = (key, value) => (value instanceof RegExp || typeof value === 'bigint' ? String(value) : value);

const give = (value) => {
  const text = JSON.stringify(value, plain);
  if (text === undefined || text === 'null') throw new TypeError(`it exports ${typeof value}, not an object`);
  say(1, text, 0);
};

const exported = (module) => {
  const value = module.default === undefined ? module : module.default;
  return value && value.__esModule && value.default !== undefined ? value.default : value;
};

import(pathToFileURL(file).href).then(exported).then(give).catch(fail);
