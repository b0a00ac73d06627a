import worker from './worker.cjs';

export const { isClusterd, app, slot, generation, send, onMessage } = worker;
export default worker;
