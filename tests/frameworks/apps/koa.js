// A plain Koa app: it knows nothing of clusters.
'use strict';
const Koa = require('koa');

const app = new Koa();
app.use((context) => {
  context.body = { framework: 'koa', pid: process.pid };
});
app.listen(process.env.PORT);
