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

/** Sends a message to others of this app, which must have an agent. Rejects where clusterd says that it did not arrive. */
export function send(to: Receiver, message: unknown): Promise<void>;
/** Calls the listener with each message. Returns a function that ends that. */
export function onMessage(listener: (message: unknown, from: Sender) => void): () => boolean;
