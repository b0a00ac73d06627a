// A plain Hono app: it knows nothing of clusters.
import { serve } from '@hono/node-server';
import { Hono } from 'hono';

const app = new Hono();
app.get('/', (context) => context.json({ framework: 'hono', pid: process.pid }));
serve({ fetch: app.fetch, port: Number(process.env.PORT) });
