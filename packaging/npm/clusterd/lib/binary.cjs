'use strict';
// Finds the clusterd binary and runs it.
const { execFile } = require('node:child_process');
const fs = require('node:fs');
const { ClusterdError } = require('./http.cjs');

/** The most that a command may print, in bytes. */
const OUTPUT_BYTES_MAX = 64 << 20;

/** The path of the binary: $CLUSTERD_BINARY, or that of this machine's package. */
function binaryPath() {
  if (process.env.CLUSTERD_BINARY) return process.env.CLUSTERD_BINARY;
  const name = `@clusterd/linux-${process.arch}`;
  let path;
  try {
    path = require.resolve(`${name}/bin/clusterd`);
  } catch (cause) {
    const advice = 'install without --omit=optional, or set CLUSTERD_BINARY';
    throw new ClusterdError(`the package ${name} is missing; ${advice}`, { code: 'ENOENT', cause });
  }
  fs.accessSync(path, fs.constants.X_OK);
  return path;
}

/** Runs clusterd with these arguments: its stdout, or an error with what it says on stderr. */
function run(args, { timeout }) {
  return new Promise((resolve, reject) => {
    const limits = { maxBuffer: OUTPUT_BYTES_MAX, timeout };
    execFile(binaryPath(), args, limits, (error, stdout, stderr) => {
      if (!error) return resolve(stdout);
      if (error.killed) {
        const message = `clusterd ${args[0]} did not end within ${timeout / 1000} s`;
        return reject(new ClusterdError(message, { code: 'ETIMEDOUT', cause: error }));
      }
      const said = String(stderr).trim().replace(/^clusterd: (error: )?/, '');
      const code = typeof error.code === 'string' ? error.code : undefined;
      return reject(new ClusterdError(said || error.message, { code, cause: error }));
    }).stdin?.end();
  });
}

module.exports = { binaryPath, run };
