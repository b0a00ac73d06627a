// Checked, not run: what an ES module imports.
import clusterd, { Clusterd, ClusterdError, connect, type App, type ClusterdEvent } from 'clusterd';
import worker, { moveWebSockets, onEvent, onMessage, send, slot } from 'clusterd/worker';

const client: Clusterd = await connect({ home: '/tmp', timeout: 1000 });
const apps: App[] = await client.apps();
const ready: number = apps[0].workers_ready;
await client.start({ script: 'app.js', instances: 'max', port: 8080 });
await client.scale(/^web/, ready + (slot ?? 0));
export const lengths: number[] = [];
for await (const line of client.logs({ follow: true })) lengths.push(line.message.length);
const events = client.events({ app: ['web'], after: { web: 7 }, stay: true });
for await (const event of events) {
  const seen: ClusterdEvent = event;
  if (seen.type === 'worker_died') lengths.push(seen.pid ?? seen.id);
}
await events.return();
const { status, pm_uptime: since } = (await client.list())[0].pm2_env;
export const all: [string, number | null] = [status, since];
await send({ slot: 1 }, { any: 'thing' });
onMessage((message: string, from) => lengths.push(message.length, typeof from === 'object' ? from.pid : 0))();
onEvent(({ event }) => lengths.push(event.length));
worker.ready();

interface Socket {
  client: { name: string };
}
declare const wss: { clients: Set<Socket>; handleUpgrade(request: object, done: (socket: Socket) => void): void };
export const moves: boolean = moveWebSockets(wss, {
  onHandover: (ws) => ws.client,
  onTakeover(ws, state, request) {
    ws.client = state;
    lengths.push(request.url?.length ?? 0);
  },
});
// @ts-expect-error: no such option
await client.start({ script: 'app.js', instancess: 2 });
// @ts-expect-error: it is a number, or an object of numbers
client.events({ after: '7' });
export const failed: number | undefined = new ClusterdError(clusterd.binaryPath(), { status: 404 }).status;
