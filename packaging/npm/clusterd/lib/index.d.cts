/** A worker of an app, as the control API has it. Fields may be added. */
export interface Worker {
  slot: number;
  id: number;
  pid: number | null;
  state: 'starting' | 'online' | 'ready' | 'spare' | 'draining' | 'stopping' | 'waiting' | 'errored' | 'stopped' | (string & {});
  generation: number;
  uptime_ms: number | null;
  restarts: number;
  memory_bytes: number | null;
  cpu_ms: number | null;
  loop_delay_ms: number | null;
  [field: string]: unknown;
}

/** An app, as the control API has it. Fields may be added. */
export interface App {
  name: string;
  /** The deployment that it is part of. */
  deployment: string;
  id: number | null;
  namespace: string;
  command: string[];
  cwd: string;
  status: 'starting' | 'running' | 'reloading' | 'stopping' | 'stopped' | 'errored' | 'gone' | (string & {});
  workers_wanted: number;
  workers_ready: number;
  generation: number;
  listen: string[];
  restarts: number;
  workers: Worker[];
  [field: string]: unknown;
}

export interface Deployment {
  name: string;
  version: string;
  /** Its control socket. */
  socket: string;
  keeper_pid: number;
  master_pid: number;
  apps: Omit<App, 'deployment'>[];
  [field: string]: unknown;
}

/** A worker with PM2's fields. */
export interface ProcessDescription {
  pid: number;
  name: string;
  pm_id: number;
  monit: { memory: number; cpu: number };
  pm2_env: Record<string, unknown>;
}

/** What `start` takes: PM2's words, and clusterd's. Numbers of times are milliseconds. */
export interface StartOptions {
  script?: string;
  command?: string | string[];
  args?: string | (string | number)[];
  env?: Record<string, string | number | boolean>;
  name?: string;
  namespace?: string;
  instances?: number | string;
  workers?: number | string;
  spares?: number;
  exec_mode?: 'cluster' | 'cluster_mode' | 'fork' | 'fork_mode';
  port?: number | string;
  host?: string;
  listen?: string | string[];
  balance?: 'round-robin' | 'sticky' | 'shared' | 'kernel';
  protocol?: 'auto' | 'node' | 'bind' | 'listen-fds' | 'none';
  ready?: string;
  wait_ready?: boolean;
  ready_timeout?: number | string;
  drain_timeout?: number | string;
  drain_delay?: number | string;
  stop_signal?: string;
  kill_timeout?: number | string;
  cwd?: string;
  user?: string | number;
  uid?: string | number;
  group?: string | number;
  gid?: string | number;
  env_file?: string | string[];
  output?: string;
  out_file?: string;
  error?: string;
  error_file?: string;
  log?: string;
  log_file?: string;
  log_date_format?: string;
  time?: boolean;
  watch?: boolean;
  cron_restart?: string;
  autorestart?: boolean;
  min_uptime?: number | string;
  max_restarts?: number;
  restart_delay?: number | string;
  exp_backoff_restart_delay?: number | string;
  stop_exit_codes?: number | number[];
  max_memory?: number | string;
  max_memory_restart?: number | string;
  interpreter?: string;
  node_args?: string;
  force?: boolean;
}

/** An app's name or id, a namespace, 'all', a pattern over names, or several of them. */
export type Target = string | number | RegExp | (string | number | RegExp)[];

export interface Done {
  name: string;
  ok: true;
  message: string;
  warnings?: string[];
}

export interface LogLine {
  message: string;
  type?: 'out' | 'err';
  app_name: string;
  timestamp?: string;
  slot?: number;
}

export interface LogOptions {
  app?: string | string[];
  lines?: number;
  follow?: boolean;
  type?: 'out' | 'err';
  slot?: number;
  signal?: AbortSignal;
}

type Callback<T> = (error: Error | null, result?: T) => void;

export class Clusterd {
  constructor(options?: { home?: string });
  readonly home: string;
  deployments(): Promise<Deployment[]>;
  deployments(callback: Callback<Deployment[]>): void;
  apps(): Promise<App[]>;
  apps(callback: Callback<App[]>): void;
  list(): Promise<ProcessDescription[]>;
  list(callback: Callback<ProcessDescription[]>): void;
  describe(target: string | number): Promise<ProcessDescription[]>;
  describe(target: string | number, callback: Callback<ProcessDescription[]>): void;
  start(options: StartOptions): Promise<ProcessDescription[]>;
  start(options: StartOptions, callback: Callback<ProcessDescription[]>): void;
  start(what: string, options?: StartOptions): Promise<ProcessDescription[] | Done[]>;
  start(id: number): Promise<Done[]>;
  reload(target: Target): Promise<Done[]>;
  reload(target: Target, callback: Callback<Done[]>): void;
  restart(target: Target): Promise<Done[]>;
  restart(target: Target, callback: Callback<Done[]>): void;
  stop(target: Target, options?: { now?: boolean }): Promise<Done[]>;
  stop(target: Target, callback: Callback<Done[]>): void;
  delete(target: Target, options?: { now?: boolean }): Promise<{ ok: true; message: string }>;
  delete(target: Target, callback: Callback<{ ok: true; message: string }>): void;
  scale(target: Target, workers: number | string): Promise<Done[]>;
  scale(target: Target, workers: number | string, callback: Callback<Done[]>): void;
  sendSignal(signal: string | number, target: Target): Promise<Done[]>;
  reset(target: Target): Promise<Done[]>;
  env(name: string): Promise<Record<string, string>>;
  logs(options?: LogOptions): AsyncGenerator<LogLine, void, undefined>;
  /** Ends what follows. Nothing else is held open. */
  disconnect(): void;
}

export class ClusterdError extends Error {
  /** The status of HTTP; undefined where there was no answer. */
  status?: number;
  code?: string;
  /** After a failed reload: the last lines of the worker that made it fail. */
  output?: string[];
  warnings?: string[];
}

/** A client of a home: $CLUSTERD_HOME, or ~/.clusterd. There is no daemon: it works before anything runs. */
export function connect(options?: { home?: string }): Promise<Clusterd>;
/** The path of the clusterd binary. */
export function binaryPath(): string;
