import api from './index.cjs';

export const { Clusterd, ClusterdError, connect, binaryPath } = api;
export default api;
