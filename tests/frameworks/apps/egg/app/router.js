'use strict';
module.exports = (app) => {
  app.get('/', async (ctx) => {
    ctx.body = { pid: process.pid, seen: app.seen, others: app.messenger.opids };
  });
  app.get('/send/:how', async (ctx) => {
    const { messenger } = app;
    const data = { pid: process.pid, how: ctx.params.how };
    if (data.how === 'sendToAgent') messenger.sendToAgent('up', data);
    if (data.how === 'sendToApp') messenger.sendToApp('across', data);
    if (data.how === 'sendRandom') messenger.sendRandom('up', data);
    if (data.how === 'broadcast') messenger.broadcast('all', data);
    ctx.body = data;
  });
};
