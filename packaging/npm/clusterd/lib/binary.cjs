'use strict';
// Finds the clusterd binary and runs it.
const { execFile } = require('node:child_process');
const fs = require('node:fs');

/** The path of the binary: $CLUSTERD_BINARY, or that of this machine's package. */
function binaryPath() {
  if (process.env.CLUSTERD_BINARY) return process.env.CLUSTERD_BINARY;
  const name = `@clusterd/linux-${process.arch}`;
  let path;
  try {
    path = require.resolve(`${name}/bin/clusterd`);
  } catch (cause) {
    const advice = 'install without --omit=optional, or set CLUSTERD_BINARY';
    throw new Error(`clusterd: the package ${name} is missing; ${advice}`, { cause });
  }
  fs.accessSync(path, fs.constants.X_OK);
  return path;
}

/** Runs clusterd with these arguments: its stdout, or an error with what it says on stderr. */
function run(args, options = {}) {
  return new Promise((resolve, reject) => {
    const limits = { maxBuffer: 64 << 20, env: process.env, ...options };
    execFile(binaryPath(), args, limits, (error, stdout, stderr) => {
      if (!error) return resolve(stdout);
      const said = String(stderr).trim().replace(/^clusterd: (error: )?/, '');
      const failed = new Error(said || error.message);
      failed.code = error.code;
      reject(failed);
    }).stdin?.end();
  });
}

module.exports = { binaryPath, run };
