// What a worker got by egg's messenger, by name.
'use strict';
module.exports = (app) => {
  app.seen = {};
  for (const name of ['across', 'all', 'ready', 'back', 'any']) {
    app.seen[name] = [];
    app.messenger.on(name, (data) => app.seen[name].push(data));
  }
  app.messenger.once('egg-ready', () => app.seen.ready.push('app'));
};
