import worker from './worker.cjs';

export const { isClusterd, app, slot, generation, ready, send, onMessage, onEvent, moveWebSockets } = worker;
export default worker;
