/** A worker of an app, as the control API has it. Fields may be added. */
export interface Worker {
  slot: number;
  id: number | null;
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
  /** 0 where there is no process. */
  pid: number;
  name: string;
  /** The app's id: workers of one app have the same, as `pm2_env.NODE_APP_INSTANCE` tells them apart. */
  pm_id: number | null;
  /** `memory` in bytes; `cpu` in percent of one CPU, since the worker's start. */
  monit: { memory: number; cpu: number };
  pm2_env: ProcessEnvironment;
}

/** Fields may be added. */
export interface ProcessEnvironment {
  name: string;
  namespace: string;
  pm_id: number | null;
  status: 'online' | 'stopping' | 'stopped' | 'launching' | 'errored' | 'waiting restart' | (string & {});
  pm_exec_path: string | null;
  pm_cwd: string;
  args: string[];
  exec_mode: 'cluster_mode' | 'fork_mode';
  instances: number;
  /** The worker's slot. */
  NODE_APP_INSTANCE: number;
  restart_time: number;
  /** When it was started, in milliseconds since 1970. */
  pm_uptime: number | null;
  pm_out_log_path: string | null;
  pm_err_log_path: string | null;
  watch: boolean;
  [field: string]: unknown;
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
  balance?: 'auto' | 'round-robin' | 'sticky' | 'shared' | 'kernel';
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

/** What an AbortSignal has. */
export interface Signal {
  readonly aborted: boolean;
  readonly reason?: any;
  addEventListener(type: 'abort', listener: () => void, options?: { once?: boolean }): void;
  removeEventListener(type: 'abort', listener: () => void): void;
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
  /** How many of the last lines of each file come first: 15, unless it is given. */
  lines?: number;
  /** Waits for further lines, until the deployments have ended. */
  follow?: boolean;
  type?: 'out' | 'err';
  slot?: number;
  /** Ends the lines with its reason. */
  signal?: Signal;
}

export type EventType =
  | 'worker_ready'
  | 'worker_died'
  | 'worker_left'
  | 'worker_leaving'
  | 'worker_overdue'
  | 'agent_ready'
  | 'agent_died'
  | 'agent_left'
  | 'app_started'
  | 'app_ready'
  | 'app_scaled'
  | 'app_stopped'
  | 'app_errored'
  | 'reload_started'
  | 'reload_canary'
  | 'reload_done'
  | 'reload_failed'
  | 'reload_superseded'
  /** A line of clusterd's log. */
  | 'warning'
  /** Events before this one are not kept any more. */
  | 'lost';

export interface ClusterdEvent {
  /** Grows with each event of a deployment. */
  id: number;
  /** When it happened, in milliseconds since 1970. */
  at_ms: number;
  type: EventType | (string & {});
  /** The same, for people. */
  message: string;
  deployment: string;
  app?: string;
  slot?: number;
  /** The id of a worker or an agent. */
  worker?: number;
  pid?: number;
  generation?: number;
}

export interface EventOptions {
  /** Only events of these apps, and only in the deployments that have them. */
  app?: string | string[];
  /** Only what came after the event with this id; with several deployments, an id for each of them by its name. */
  after?: number | Record<string, number>;
  /** First those that clusterd has kept, 1,024 of each deployment at most. */
  kept?: boolean;
  /** Waits for further events, until the last deployment has ended. True, unless it is given; else the kept ones come. */
  follow?: boolean;
  /** Also events of deployments that start later. It ends by `return`, `disconnect` or `signal` alone. */
  stay?: boolean;
  /** Ends the events with its reason. */
  signal?: Signal;
}

/** Of each deployment one item waits to be taken, and what the buffers of its connection hold. */
export interface Stream<T> extends AsyncIterableIterator<T> {
  next(): Promise<IteratorResult<T, undefined>>;
  /** Ends it at once, also a `next` that waits. */
  return(): Promise<IteratorResult<T, undefined>>;
  [Symbol.asyncIterator](): Stream<T>;
}

type Callback<T> = (error: ClusterdError | Error | null, result?: T) => void;

export interface ConnectOptions {
  /** $CLUSTERD_HOME, or ~/.clusterd, unless it is given. */
  home?: string;
  /** How long a request that changes something may take, in milliseconds; 600,000 unless it is given. */
  timeout?: number;
}

/** A generation of an app that ran. */
export interface Release {
  generation: number;
  /** When it began, in milliseconds since 1970. */
  at_ms: number;
  folder: string;
  command: string;
  state: 'starting' | 'serving' | 'served' | 'rolled_back' | 'failed' | (string & {});
  /** It is a roll-back to this generation. */
  back_to: number | null;
  /** Why it failed. */
  reason: string | null;
}

export class Clusterd {
  constructor(options?: ConnectOptions);
  readonly home: string;
  /** The control sockets that are there. */
  sockets(): string[];
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
  start(what: string, callback: Callback<ProcessDescription[] | Done[]>): void;
  start(what: string, options: StartOptions, callback: Callback<ProcessDescription[] | Done[]>): void;
  start(id: number): Promise<Done[]>;
  start(id: number, callback: Callback<Done[]>): void;
  /** Rejects where the new code does not get ready, and the old workers stay. */
  reload(target: Target): Promise<Done[]>;
  reload(target: Target, callback: Callback<Done[]>): void;
  /** The generations of an app that ran, the last one first. */
  releases(name: string): Promise<Release[]>;
  releases(name: string, callback: Callback<Release[]>): void;
  /** Goes back to the generation that served before, or to `to`. */
  rollback(target: Target, options?: { to?: number }): Promise<Done[]>;
  rollback(target: Target, callback: Callback<Done[]>): void;
  rollback(target: Target, options: { to?: number }, callback: Callback<Done[]>): void;
  restart(target: Target): Promise<Done[]>;
  restart(target: Target, callback: Callback<Done[]>): void;
  stop(target: Target, options?: { now?: boolean }): Promise<Done[]>;
  stop(target: Target, callback: Callback<Done[]>): void;
  stop(target: Target, options: { now?: boolean }, callback: Callback<Done[]>): void;
  delete(target: Target, options?: { now?: boolean }): Promise<Done[]>;
  delete(target: Target, callback: Callback<Done[]>): void;
  delete(target: Target, options: { now?: boolean }, callback: Callback<Done[]>): void;
  scale(target: Target, workers: number | string): Promise<Done[]>;
  scale(target: Target, workers: number | string, callback: Callback<Done[]>): void;
  sendSignal(signal: string | number, target: Target): Promise<Done[]>;
  sendSignal(signal: string | number, target: Target, callback: Callback<Done[]>): void;
  reset(target: Target): Promise<Done[]>;
  reset(target: Target, callback: Callback<Done[]>): void;
  /** Calls an action that workers offer (`@pm2/io`). */
  trigger(target: Target, action: string, parameter?: string, options?: { slot?: number }): Promise<Done[]>;
  trigger(target: Target, action: string, callback: Callback<Done[]>): void;
  trigger(target: Target, action: string, parameter: string, callback: Callback<Done[]>): void;
  /** Empties log files: of every app, unless a target is given. */
  flush(target?: Target): Promise<Done[]>;
  flush(callback: Callback<Done[]>): void;
  flush(target: Target, callback: Callback<Done[]>): void;
  /** Opens every log file again; the names are those of deployments. */
  reloadLogs(): Promise<Done[]>;
  reloadLogs(callback: Callback<Done[]>): void;
  env(name: string): Promise<Record<string, string>>;
  env(name: string, callback: Callback<Record<string, string>>): void;
  logs(options?: LogOptions): Stream<LogLine>;
  events(options?: EventOptions): Stream<ClusterdEvent>;
  /** Ends what follows. Nothing else is held open. */
  disconnect(): void;
}

export class ClusterdError extends Error {
  constructor(message: string, details?: {
    status?: number;
    code?: string;
    output?: string[];
    warnings?: string[];
    cause?: unknown;
  });
  /** The status of HTTP; undefined where there was no answer. */
  status?: number;
  /** That of the system call that failed (`ENOENT`: nothing runs; `EACCES`), or `ETIMEDOUT`. */
  code?: string;
  /** After a failed reload: the last lines of the worker that made it fail. */
  output?: string[];
  warnings?: string[];
}

/** A client of a home. There is no daemon: it works before anything runs. */
export function connect(options?: ConnectOptions): Promise<Clusterd>;
export function connect(callback: Callback<Clusterd>): void;
export function connect(options: ConnectOptions, callback: Callback<Clusterd>): void;
/** The path of the clusterd binary. */
export function binaryPath(): string;

declare const api: {
  Clusterd: typeof Clusterd;
  ClusterdError: typeof ClusterdError;
  connect: typeof connect;
  binaryPath: typeof binaryPath;
};
export default api;
