// A plain Hapi app: it knows nothing of clusters.
'use strict';
const hapi = require('@hapi/hapi');

const server = hapi.server({ port: process.env.PORT });
server.route({ method: 'GET', path: '/', handler: () => ({ framework: 'hapi', pid: process.pid }) });
server.start();
