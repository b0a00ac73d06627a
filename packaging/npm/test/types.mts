// Checked, not run.
import clusterd, { Clusterd, ClusterdError, connect, type App } from 'clusterd';
import { send, slot } from 'clusterd/worker';

const client: Clusterd = await connect({ home: '/tmp' });
const apps: App[] = await client.apps();
const ready: number = apps[0].workers_ready;
await client.start({ script: 'app.js', instances: 'max', port: 8080 });
await client.scale(/^web/, ready + (slot ?? 0));
for await (const line of client.logs({ follow: true })) console.log(line.message.length);
await send({ slot: 1 }, { any: 'thing' });
// @ts-expect-error: no such option
await client.start({ script: 'app.js', instancess: 2 });
console.log(clusterd.binaryPath().length, new ClusterdError('x').status);
