'use strict';
// What `start` takes as an object, in the words of PM2 and of clusterd, as arguments of the command line.

const VALUES = {
  name: '--name',
  namespace: '--namespace',
  instances: '--instances',
  workers: '--workers',
  spares: '--spares',
  port: '--port',
  host: '--host',
  listen: '--listen',
  balance: '--balance',
  protocol: '--protocol',
  ready: '--ready',
  ready_timeout: '--ready-timeout',
  drain_timeout: '--drain-timeout',
  drain_delay: '--drain-delay',
  stop_signal: '--stop-signal',
  kill_timeout: '--kill-timeout',
  cwd: '--cwd',
  user: '--user',
  uid: '--user',
  group: '--group',
  gid: '--group',
  env_file: '--env-file',
  output: '--output',
  out_file: '--output',
  error: '--error',
  error_file: '--error',
  log: '--log',
  log_file: '--log',
  log_date_format: '--log-date-format',
  cron_restart: '--cron-restart',
  min_uptime: '--min-uptime',
  max_restarts: '--max-restarts',
  restart_delay: '--restart-delay',
  exp_backoff_restart_delay: '--backoff-min',
  stop_exit_codes: '--stop-exit-codes',
  max_memory: '--max-memory',
  max_memory_restart: '--max-memory',
  interpreter: '--interpreter',
  node_args: '--node-args',
};

const SWITCHES = { watch: '--watch', time: '--time', force: '--force', wait_ready: '--wait-ready' };
/** Numbers of these are milliseconds, as PM2 has them. */
const TIMES = new Set([
  'kill_timeout', 'min_uptime', 'restart_delay', 'exp_backoff_restart_delay', 'ready_timeout', 'drain_timeout',
  'drain_delay',
]);

function text(key, value) {
  if (typeof value === 'number' && TIMES.has(key)) return `${value}ms`;
  if (typeof value === 'string' || typeof value === 'number') return String(value);
  throw new TypeError(`clusterd: ${key} is a text or a number, not ${typeof value}`);
}

/** The arguments of `clusterd start` for these options. */
function startArguments(options) {
  const { script, command, args = [], env = {}, exec_mode: mode, autorestart, ...others } = options;
  if ((script === undefined) === (command === undefined)) {
    throw new TypeError('clusterd: start wants either script or command');
  }
  if (mode !== undefined && !['cluster', 'cluster_mode', 'fork', 'fork_mode'].includes(mode)) {
    throw new TypeError(`clusterd: exec_mode is "cluster" or "fork", not ${JSON.stringify(mode)}`);
  }
  const typed = ['start'];
  if (autorestart === false) typed.push('--no-autorestart');
  for (const [key, value] of Object.entries(others)) {
    if (value === undefined || value === null || (key in SWITCHES && value === false)) continue;
    if (key in SWITCHES && value === true) typed.push(SWITCHES[key]);
    else if (Object.hasOwn(VALUES, key)) {
      for (const each of Array.isArray(value) ? value : [value]) typed.push(`${VALUES[key]}=${text(key, each)}`);
    } else throw new TypeError(`clusterd: start knows no option "${key}"`);
  }
  for (const [key, value] of Object.entries(env)) typed.push('--env', `${key}=${value}`);
  const words = typeof args === 'string' ? args.split(/\s+/).filter(Boolean) : args.map(String);
  if (command === undefined) return [...typed, script, ...(words.length ? ['--', ...words] : [])];
  return [...typed, '--', ...(Array.isArray(command) ? command : [command]), ...words];
}

module.exports = { startArguments };
