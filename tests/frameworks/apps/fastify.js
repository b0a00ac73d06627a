// A plain Fastify app: it knows nothing of clusters.
'use strict';
const fastify = require('fastify')();

fastify.get('/', async () => ({ framework: 'fastify', pid: process.pid }));
fastify.listen({ port: process.env.PORT });
