/** Whether clusterd started this process. */
export const isClusterd: boolean;
/** The app's name. */
export const app: string | undefined;
/** This worker's place, from 0; its replacement has the same. */
export const slot: number | undefined;
/** Counts reloads. */
export const generation: number | undefined;

export type Receiver = 'agent' | 'all' | 'random' | { slot: number } | { pid: number };
export type Sender = 'agent' | { slot: number; pid: number };

/** What clusterd tells the agent. */
export interface AgentEvent {
  event:
    | 'state'
    | 'worker_ready'
    | 'worker_leaving'
    | 'worker_exit'
    | 'app_ready'
    | 'scaled'
    | 'reload_started'
    | 'reload_done'
    | 'reload_failed'
    | 'stopping'
    | (string & {});
  [field: string]: unknown;
}

/** This process is ready: an agent, or a worker that says so itself. False without clusterd. */
export function ready(): boolean;
/** Sends a message to others of this app, which must have an agent. Rejects where clusterd says that it did not arrive. */
export function send(to: Receiver, message: unknown): Promise<void>;
/** Calls the listener with each message. Returns a function that ends that. */
export function onMessage(listener: (message: any, from: Sender) => void): () => void;
/** In an agent: calls the listener with what happens to the workers. Returns a function that ends that. */
export function onEvent(listener: (event: AgentEvent) => void): () => void;

/** The request of the handshake. */
export interface HandshakeRequest {
  method?: string;
  url?: string;
  httpVersion: string;
  headers: Record<string, string | string[] | undefined>;
}

/** What a WebSocketServer of the `ws` library has. */
export interface WebSocketServerLike<Socket> {
  clients: Set<Socket>;
  handleUpgrade: (...args: any[]) => void;
}

/**
 * Has the WebSockets of a server move to another worker, with their state, when this worker leaves. Call it before the server listens.
 * False where they do not move: without clusterd, or with `preload = false`.
 */
export function moveWebSockets<Socket, State>(
  server: WebSocketServerLike<Socket>,
  options: {
    /** What the next worker has to know, as JSON; undefined: not now. */
    onHandover(ws: Socket): State | undefined;
    /** This worker has the connection from now on. */
    onTakeover(ws: Socket, state: State, request: HandshakeRequest): void;
    /** Tells several servers of an app apart; its path, unless it is given. */
    name?: string;
  },
): boolean;
